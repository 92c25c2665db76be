"""All doors of the API, one line each: method, path, who may use it, and the room that answers."""

from mailrail.accounts import routes as accounts
from mailrail.accounts.model import Scope
from mailrail.campaigns import routes as campaigns
from mailrail.confirmations import routes as confirmations
from mailrail.contacts import routes as contacts
from mailrail.domains import routes as domains
from mailrail.emails import routes as emails
from mailrail.events import routes as events
from mailrail.imports import routes as imports
from mailrail.mail_v1 import campaigns as mail_campaigns
from mailrail.mail_v1 import contacts as mail_contacts
from mailrail.ops import routes as ops
from mailrail.preferences import routes as preferences
from mailrail.privacy import routes as privacy
from mailrail.rehearsals import routes as rehearsals
from mailrail.reputation import routes as reputation
from mailrail.suppressions import routes as suppressions
from mailrail.templates import routes as templates
from mailrail.tracking.routes import Tracking
from mailrail.wallet import routes as wallet
from mailrail.web import routes as reference
from mailrail.web.auth import PUBLIC
from mailrail.web.route import Route
from mailrail.webhooks import routes as webhooks


def routes(tracking: Tracking) -> tuple[Route, ...]:
    """All doors of the API."""
    return (
        Route("POST", "/api/v1/contacts", Scope.CONTACTS_WRITE, contacts.create),
        Route("GET", "/api/v1/contacts", Scope.CONTACTS_READ, contacts.page),
        Route("GET", "/api/v1/contacts/<contact_id>", Scope.CONTACTS_READ, contacts.get),
        Route("PATCH", "/api/v1/contacts/<contact_id>", Scope.CONTACTS_WRITE, contacts.change),
        *contact_imports("/api/v1/contacts/import"),
        *people("/api/v1"),
        *sending_domains("/api/v1/domains"),
        Route("POST", "/api/v1/campaigns", Scope.CAMPAIGNS_WRITE, campaigns.create),
        Route("GET", "/api/v1/campaigns", Scope.CAMPAIGNS_READ, campaigns.page),
        Route("GET", "/api/v1/campaigns/<campaign_id>", Scope.CAMPAIGNS_READ, campaigns.get),
        Route("PATCH", "/api/v1/campaigns/<campaign_id>", Scope.CAMPAIGNS_WRITE, campaigns.change),
        Route("POST", "/api/v1/campaigns/<campaign_id>/launch", Scope.CAMPAIGNS_SEND, campaigns.launch),
        *campaign_control("/api/v1/campaigns/<campaign_id>"),
        Route("POST", "/api/v1/emails", Scope.EMAILS_SEND, emails.send),
        Route("GET", "/api/v1/emails", Scope.EMAILS_READ, emails.page),
        Route("POST", "/api/v1/emails/batch", Scope.EMAILS_SEND, emails.send_batch),
        Route("GET", "/api/v1/emails/<email_id>", Scope.EMAILS_READ, emails.get),
        Route("POST", "/api/v1/emails/<email_id>/cancel", Scope.EMAILS_SEND, emails.cancel),
        *stored_templates("/api/v1/templates"),
        Route("GET", "/api/v1/stats", Scope.STATS_READ, campaigns.account_stats),
        *office("/api/v1"),
        # The dialect /v1/mail.
        Route("POST", "/v1/mail/contacts", Scope.CONTACTS_WRITE, mail_contacts.create),
        Route("GET", "/v1/mail/contacts", Scope.CONTACTS_READ, mail_contacts.page),
        Route("GET", "/v1/mail/contacts/<contact_id>", Scope.CONTACTS_READ, mail_contacts.get),
        Route("PATCH", "/v1/mail/contacts/<contact_id>", Scope.CONTACTS_WRITE, mail_contacts.change),
        *contact_imports("/v1/mail/contacts/import"),
        *people("/v1/mail"),
        *sending_domains("/v1/mail/domains"),
        Route("POST", "/v1/mail/campaigns", Scope.CAMPAIGNS_WRITE, mail_campaigns.create),
        Route("GET", "/v1/mail/campaigns/<campaign_id>", Scope.CAMPAIGNS_READ, mail_campaigns.get),
        Route("PATCH", "/v1/mail/campaigns/<campaign_id>", Scope.CAMPAIGNS_WRITE, mail_campaigns.change),
        Route("POST", "/v1/mail/campaigns/<campaign_id>/send", Scope.CAMPAIGNS_SEND, mail_campaigns.send),
        Route("GET", "/v1/mail/campaigns/<campaign_id>/stats", Scope.CAMPAIGNS_READ, mail_campaigns.stats),
        *campaign_control("/v1/mail/campaigns/<campaign_id>"),
        *stored_templates("/v1/mail/templates"),
        Route("GET", "/v1/mail/stats", Scope.STATS_READ, campaigns.account_stats),
        *office("/v1/mail"),
        # Readers of mail, whose token is their key.
        Route("GET HEAD", "/o/<token>", PUBLIC, tracking.open),
        Route("GET HEAD", "/c/<token>/<link>", PUBLIC, tracking.click),
        Route("GET HEAD", "/u/<token>", PUBLIC, preferences.show),
        Route("POST", "/u/<token>", PUBLIC, preferences.change),
        Route("GET HEAD", "/confirm/<token>", PUBLIC, confirmations.show),
        Route("POST", "/confirm/<token>", PUBLIC, confirmations.confirm),
        # Amazon SNS, whose signature is its key.
        Route("POST", "/events/sns", PUBLIC, events.take_notification),
        # Operators.
        Route("GET HEAD", "/healthz", PUBLIC, ops.health),
        Route("GET HEAD", "/readyz", PUBLIC, ops.readiness),
        Route("GET HEAD", "/metrics", PUBLIC, ops.metrics),
        # What the API says of itself.
        Route("GET HEAD", "/openapi.json", PUBLIC, reference.show_document),
        Route("GET HEAD", "/docs", PUBLIC, reference.show_docs),
        Route("GET HEAD", "/docs/errors", PUBLIC, reference.show_errors),
    )


def sending_domains(path: str) -> tuple[Route, ...]:
    """What is the same in both dialects."""
    return (
        Route("POST", path, Scope.DOMAINS_WRITE, domains.create),
        Route("GET", path, Scope.DOMAINS_READ, domains.page),
        Route("GET", f"{path}/<domain_id>", Scope.DOMAINS_READ, domains.get),
        Route("PATCH", f"{path}/<domain_id>", Scope.DOMAINS_WRITE, domains.change),
        Route("POST", f"{path}/<domain_id>/verify", Scope.DOMAINS_WRITE, domains.verify),
        Route("DELETE", f"{path}/<domain_id>", Scope.DOMAINS_WRITE, domains.delete),
    )


def contact_imports(path: str) -> tuple[Route, ...]:
    """What is the same in both dialects."""
    return (
        Route("POST", path, Scope.CONTACTS_WRITE, imports.create, streams=True),
        Route("GET", path, Scope.CONTACTS_READ, imports.page),
        Route("GET", f"{path}/<import_id>", Scope.CONTACTS_READ, imports.get),
        Route("GET", f"{path}/<import_id>/errors", Scope.CONTACTS_READ, imports.page_errors),
        Route("POST", f"{path}/<import_id>/cancel", Scope.CONTACTS_WRITE, imports.cancel),
    )


def people(path: str) -> tuple[Route, ...]:
    """What may be known of a person, lists, and addresses that get no mail: the same in both dialects."""
    return (
        Route("DELETE", f"{path}/contacts/<contact_id>", Scope.CONTACTS_WRITE, privacy.delete_contact),
        Route("GET", f"{path}/contacts/<contact_id>/export", Scope.CONTACTS_READ, privacy.export_contact),
        Route("GET", f"{path}/erasures/<erasure_id>", Scope.CONTACTS_READ, privacy.get_erasure),
        Route("GET", f"{path}/contacts/<contact_id>/consents", Scope.CONTACTS_READ, contacts.page_consents),
        Route("POST", f"{path}/lists", Scope.CONTACTS_WRITE, contacts.create_list),
        Route("GET", f"{path}/lists", Scope.CONTACTS_READ, contacts.page_lists),
        Route("GET", f"{path}/lists/<list_id>", Scope.CONTACTS_READ, contacts.get_list),
        Route("PATCH", f"{path}/lists/<list_id>", Scope.CONTACTS_WRITE, contacts.change_list),
        Route("DELETE", f"{path}/lists/<list_id>", Scope.CONTACTS_WRITE, contacts.delete_list),
        Route("POST", f"{path}/lists/<list_id>/contacts", Scope.CONTACTS_WRITE, contacts.add_members),
        Route("DELETE", f"{path}/lists/<list_id>/contacts/<contact_id>", Scope.CONTACTS_WRITE, contacts.remove_member),
        Route(
            "POST",
            f"{path}/lists/<list_id>/contacts/<contact_id>/unsubscribe",
            Scope.CONTACTS_WRITE,
            contacts.leave_list,
        ),
        Route("GET", f"{path}/suppressions", Scope.CONTACTS_READ, suppressions.page),
        Route("POST", f"{path}/suppressions", Scope.CONTACTS_WRITE, suppressions.create),
        Route("POST", f"{path}/suppressions/import", Scope.CONTACTS_WRITE, suppressions.import_list),
        Route("GET", f"{path}/suppressions/<suppression>", Scope.CONTACTS_READ, suppressions.get),
        Route("DELETE", f"{path}/suppressions/<suppression>", Scope.CONTACTS_WRITE, suppressions.delete),
    )


def campaign_control(path: str) -> tuple[Route, ...]:
    """What is the same in both dialects."""
    return (
        Route("POST", f"{path}/pause", Scope.CAMPAIGNS_SEND, campaigns.pause),
        Route("POST", f"{path}/resume", Scope.CAMPAIGNS_SEND, campaigns.resume),
        Route("POST", f"{path}/cancel", Scope.CAMPAIGNS_SEND, campaigns.cancel),
        Route("POST", f"{path}/retry", Scope.CAMPAIGNS_SEND, campaigns.retry),
        Route("GET", f"{path}/recipients", Scope.CAMPAIGNS_READ, campaigns.page_recipients),
        Route("GET", f"{path}/links", Scope.CAMPAIGNS_READ, campaigns.page_links),
        Route("DELETE", path, Scope.CAMPAIGNS_WRITE, campaigns.delete),
        Route("POST", f"{path}/duplicate", Scope.CAMPAIGNS_WRITE, campaigns.duplicate),
        Route("GET", f"{path}/preview", Scope.CAMPAIGNS_READ, rehearsals.show_preview),
        Route("POST", f"{path}/preview", Scope.CAMPAIGNS_READ, rehearsals.preview),
        # Transactional mail: whoever may send that may test, a test key too.
        Route("POST", f"{path}/test", Scope.EMAILS_SEND, rehearsals.send_test),
        Route("POST", f"{path}/dry-run", Scope.CAMPAIGNS_READ, rehearsals.dry_run),
        Route("GET", f"{path}/preflight", Scope.CAMPAIGNS_READ, rehearsals.preflight),
    )


def stored_templates(path: str) -> tuple[Route, ...]:
    """What is the same in both dialects."""
    return (
        Route("POST", path, Scope.TEMPLATES_WRITE, templates.create),
        Route("GET", path, Scope.TEMPLATES_READ, templates.page),
        Route("POST", f"{path}/validate", Scope.TEMPLATES_READ, templates.validate),
        Route("GET", f"{path}/<template_id>", Scope.TEMPLATES_READ, templates.get),
        Route("PATCH", f"{path}/<template_id>", Scope.TEMPLATES_WRITE, templates.change),
        Route("DELETE", f"{path}/<template_id>", Scope.TEMPLATES_WRITE, templates.delete),
        Route("POST", f"{path}/<template_id>/preview", Scope.TEMPLATES_READ, templates.preview),
        Route("GET", f"{path}/<template_id>/versions", Scope.TEMPLATES_READ, templates.list_versions),
        Route("GET", f"{path}/<template_id>/versions/<version>", Scope.TEMPLATES_READ, templates.get_version),
    )


def office(path: str) -> tuple[Route, ...]:
    """The account, its keys, money and webhook endpoints: the same in both dialects."""
    return (
        Route("GET", f"{path}/account", Scope.ACCOUNT_READ, accounts.get),
        Route("PATCH", f"{path}/account", Scope.ACCOUNT_WRITE, domains.change_account),
        Route("GET", f"{path}/account/reputation", Scope.ACCOUNT_READ, reputation.get),
        Route("GET", f"{path}/keys", Scope.KEYS_READ, accounts.page_keys),
        Route("POST", f"{path}/keys", Scope.KEYS_WRITE, accounts.create_key),
        Route("DELETE", f"{path}/keys/<key_id>", Scope.KEYS_WRITE, accounts.revoke_key),
        Route("GET", f"{path}/wallet", Scope.WALLET_READ, wallet.get),
        Route("PATCH", f"{path}/wallet", Scope.ACCOUNT_WRITE, wallet.change),
        Route("GET", f"{path}/wallet/transactions", Scope.WALLET_READ, wallet.page_transfers),
        Route("GET", f"{path}/wallet/holds", Scope.WALLET_READ, wallet.page_holds),
        Route("GET", f"{path}/wallet/holds/<hold_id>", Scope.WALLET_READ, wallet.get_hold),
        Route("POST", f"{path}/wallet/deposit", Scope.OPERATOR, wallet.deposit),
        Route("POST", f"{path}/wallet/refund", Scope.OPERATOR, wallet.refund),
        Route("GET", f"{path}/pricing", Scope.WALLET_READ, wallet.show_pricing),
        Route("GET", f"{path}/webhooks", Scope.WEBHOOKS_READ, webhooks.page),
        Route("POST", f"{path}/webhooks", Scope.WEBHOOKS_WRITE, webhooks.create),
        Route("GET", f"{path}/webhooks/<webhook_id>", Scope.WEBHOOKS_READ, webhooks.get),
        Route("PATCH", f"{path}/webhooks/<webhook_id>", Scope.WEBHOOKS_WRITE, webhooks.change),
        Route("DELETE", f"{path}/webhooks/<webhook_id>", Scope.WEBHOOKS_WRITE, webhooks.delete),
        Route("GET", f"{path}/webhooks/<webhook_id>/secret", Scope.WEBHOOKS_WRITE, webhooks.show_secret),
        Route("POST", f"{path}/webhooks/<webhook_id>/rotate-secret", Scope.WEBHOOKS_WRITE, webhooks.rotate_secret),
        Route("POST", f"{path}/webhooks/<webhook_id>/test", Scope.WEBHOOKS_WRITE, webhooks.send_test),
        Route("POST", f"{path}/webhooks/<webhook_id>/replay", Scope.WEBHOOKS_WRITE, webhooks.replay_range),
        Route("GET", f"{path}/webhooks/<webhook_id>/deliveries", Scope.WEBHOOKS_READ, webhooks.page_deliveries),
        Route("GET", f"{path}/webhooks/deliveries/<delivery_id>", Scope.WEBHOOKS_READ, webhooks.get_delivery),
        Route("POST", f"{path}/webhooks/deliveries/<delivery_id>/replay", Scope.WEBHOOKS_WRITE, webhooks.replay),
    )
