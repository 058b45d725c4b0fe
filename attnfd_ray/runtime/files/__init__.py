"""Files of a store's runs: claims, retention, garbage collection, first weights, warm starts."""
