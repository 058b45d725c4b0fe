"""Programs that measure the project's claims. Each prints its figures and saves them in results."""
