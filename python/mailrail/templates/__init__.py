"""What mail is made of, stored under a name: subject, preheader, HTML and text, in versions that never change.

Owns templates and template_versions. Mail and campaigns copy the content that they name, so neither a new version nor a
deletion reaches what is already accepted. The language is that of campaigns; the core checks and renders it.
"""
