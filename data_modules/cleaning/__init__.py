"""Cleaning of documents by named rules, with a ledger of what each rule changed or dropped."""
