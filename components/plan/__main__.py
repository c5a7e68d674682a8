"""`python -m components.plan`."""

from components.plan.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
