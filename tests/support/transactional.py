"""A process that sends a single mail every 0.2 s as the API will: tokens from the shared limiter, then SendEmail.

Run as `python -m tests.support.transactional` with the settings in the environment; ends on SIGTERM. It prints `ready` once
SES has told its figures, before which no mail gets a token, and then a line a mail: how many seconds it waited for its token,
and whether SES took it.
"""

import asyncio
import itertools
import os
import signal
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from mailrail import config
from mailrail.config import Settings
from mailrail.db.pool import open_pool
from mailrail.ses.limiter import Limiter, NoTokens

INTERVAL_S = 0.2


async def main(settings: Settings) -> None:
    """Until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    pool = await open_pool(settings.api_database_url, application_name="tests transactional")
    limiter = Limiter(pool, settings)
    ses = boto3.client(
        "sesv2",
        region_name=settings.ses_region,
        endpoint_url=settings.ses_endpoint,
        verify=settings.ses_ca_file,
        aws_access_key_id=settings.ses_access_key,
        aws_secret_access_key=settings.ses_secret_key,
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )
    while not (await limiter.look()).is_open:
        await asyncio.sleep(INTERVAL_S)
    print("ready", flush=True)
    async with asyncio.TaskGroup() as mails:
        for number in itertools.count():
            if stopping.is_set():
                break
            mails.create_task(send(limiter, ses, number))
            await asyncio.sleep(INTERVAL_S)
    await pool.close()


async def send(limiter: Limiter, ses: object, number: int) -> None:
    """One mail."""
    asked_at = time.monotonic()
    try:
        wait_s = await limiter.take(1)
    except NoTokens:
        print("inf refused", flush=True)
        return
    await asyncio.sleep(wait_s)
    waited_s = time.monotonic() - asked_at
    verdict = await asyncio.to_thread(submit, ses, number)
    print(f"{waited_s:.4f} {verdict}", flush=True)


def submit(ses: object, number: int) -> str:
    """SendEmail: "sent", or the name of what SES raised."""
    try:
        ses.send_email(  # type: ignore[attr-defined]
            FromEmailAddress="receipts@acme.com",
            Destination={"ToAddresses": [f"t{number}@example.org"]},
            Content={"Simple": {"Subject": {"Data": "Receipt"}, "Body": {"Text": {"Data": "Thank you"}}}},
        )
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "sent"


if __name__ == "__main__":
    asyncio.run(main(config.load(os.environ)))
