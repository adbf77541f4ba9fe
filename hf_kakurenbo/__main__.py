"""`python -m hf_kakurenbo` is the command `hf-kakurenbo`."""

from .cli import main

if __name__ == "__main__":
    main()
