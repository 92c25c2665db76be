"""Partitions: ready weeks ahead, and raw notifications dropped by the day."""

from mailrail.db.partitions import drop_old_notifications, make_partitions
from mailrail.db.pool import Pool

LAST_DAY = "SELECT format('mailrail.notifications_%s', to_char(current_date + 7, 'YYYYMMDD'))"
OLD_DAY = "SELECT format('mailrail.notifications_%s', to_char(current_date - 30, 'YYYYMMDD'))"


async def test_a_missing_partition_is_made_once(worker_pool: Pool, superuser_pool: Pool) -> None:
    part = await superuser_pool.fetchval(LAST_DAY)
    await superuser_pool.execute(f"DROP TABLE {part}")
    async with worker_pool.acquire() as conn:
        assert [await make_partitions(conn) for _ in range(2)] == [1, 0]
    assert await superuser_pool.fetchval("SELECT to_regclass($1) IS NOT NULL", part)


async def test_an_old_day_goes_and_the_others_stay(worker_pool: Pool, superuser_pool: Pool) -> None:
    part = await superuser_pool.fetchval(OLD_DAY)
    await superuser_pool.execute(
        f"""SET ROLE mailrail_owner;
            CREATE TABLE {part} PARTITION OF mailrail.notifications FOR VALUES FROM ('2001-01-01') TO ('2001-01-02');
            RESET ROLE"""
    )
    async with worker_pool.acquire() as conn:
        assert [await drop_old_notifications(conn) for _ in range(2)] == [1, 0]
    assert await superuser_pool.fetchval("SELECT to_regclass($1) IS NULL", part)
