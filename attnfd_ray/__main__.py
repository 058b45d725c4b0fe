"""`python -m attnfd_ray` is `attnfd-ray`."""

from attnfd_ray.cli import main

if __name__ == "__main__":
    main()
