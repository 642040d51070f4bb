"""Storage: tables of Arrow shards, their LanceDB projection, digests and run records.

Knows no tensors and no stages. Importing it imports neither lancedb nor torch nor ray.
"""
