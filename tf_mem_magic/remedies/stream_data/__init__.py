"""Stream data: arrays and pipelines that hold the data set in host memory hand it over in batches."""
