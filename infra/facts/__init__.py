"""Facts about Google Cloud: regions, tiers, limits, names and prices.

Nothing here creates a resource.
"""
