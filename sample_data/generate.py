"""Make sample data: `python sample_data/generate.py --help`."""

from generator.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main())
