"""`python -m components.dataset`."""

from components.dataset.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
