"""What mailrail needs in an AWS account: the pieces by name, the policies, what is there, and how one becomes the other.

`mailrail aws setup` makes the pieces, `mailrail doctor --aws` examines them; both look by `look` and judge by `plan`.
"""
