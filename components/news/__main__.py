"""`python -m components.news`."""

from components.news.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
