"""What the intake can answer."""

from mailrail.errors import MailrailError


class NotificationRefused(MailrailError):
    """This is not a notification of a topic that mailrail listens to."""

    code = "notification_refused"


class IntakeUnavailable(MailrailError):
    """The notification could not be stored now. Send it again later."""

    code = "intake_unavailable"
