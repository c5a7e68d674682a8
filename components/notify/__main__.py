"""`python -m components.notify`."""

from components.notify.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
