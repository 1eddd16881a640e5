"""Jobs know how much there is to work on; workers tell what they take, hear and are asked."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BYTES = {
    "sqlite": "json_extract({0}, '$.bytes')",
    "postgresql": "({0}->>'bytes')::bigint",
}


def upgrade() -> None:
    op.add_column(
        "jobs", sa.Column("work_bytes", sa.BigInteger(), nullable=False, server_default="0")
    )
    words = _BYTES[op.get_bind().dialect.name]
    parts = " + ".join(
        f"coalesce({words.format(name)}, 0)" for name in ("model", "calibration", "evaluation")
    )
    op.execute(f"UPDATE jobs SET work_bytes = {parts}")  # noqa: S608 - names of our own
    for column in (
        sa.Column("classes", sa.Text(), nullable=False, server_default=""),
        sa.Column("last_claim_try", sa.Double(), nullable=True),
        sa.Column("draining", sa.Boolean(), nullable=False, server_default=sa.false()),
    ):
        op.add_column("workers", column)


def downgrade() -> None:
    for name in ("draining", "last_claim_try", "classes"):
        op.drop_column("workers", name)
    op.drop_column("jobs", "work_bytes")
