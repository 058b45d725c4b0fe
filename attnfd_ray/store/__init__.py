"""The results store: write-once Parquet parts that anyone's pyarrow, pandas or duckdb can read. No
torch, no ray.
"""
