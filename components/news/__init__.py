"""Stage `news`: are there demonstrations that no policy was judged on yet?"""
