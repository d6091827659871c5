"""The scenarios in the formats of others."""
