"""The results store: Parquet files that pyarrow, pandas and duckdb can read. No torch, no ray."""
