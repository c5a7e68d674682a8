"""`python -m components.settings`."""

from components.settings.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
