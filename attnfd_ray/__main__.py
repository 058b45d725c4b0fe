"""`python -m attnfd_ray` runs the command `attnfd-ray`."""

from attnfd_ray.cli import main

if __name__ == "__main__":
    main()
