"""The same command line as `fieldmark`, for `ray job submit ... -- python run_pipeline.py run JOB`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
