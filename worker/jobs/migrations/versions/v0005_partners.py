"""Jobs may have a partner: the decoder that goes with an encoder, or the reverse."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("partner_id", sa.String(length=36), nullable=True))
    op.add_column("jobs", sa.Column("partner", sa.JSON(none_as_null=True), nullable=True))
    op.create_index("ix_jobs_partner_id", "jobs", ["partner_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_jobs_partner_id", table_name="jobs")
    op.drop_column("jobs", "partner")
    op.drop_column("jobs", "partner_id")
