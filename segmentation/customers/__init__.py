"""The customer table, read through its card, wherever it lies: a file, a database, a cluster.

`cards`, `columns`, `text` and `database` are for whoever reads other tables by the same card.
"""

from segmentation.customers import card as cards
from segmentation.customers import columns, database, text
from segmentation.customers.card import Card
from segmentation.customers.table import (
    Customers,
    explain_card,
    hash_table,
    is_large,
    open_customers,
    read_card,
    read_customers,
)

__all__ = [
    "Card",
    "Customers",
    "cards",
    "columns",
    "database",
    "explain_card",
    "hash_table",
    "is_large",
    "open_customers",
    "read_card",
    "read_customers",
    "text",
]
