# A process has one set of Django settings, and other tests have theirs. So test_examples.py runs this one in a
# process of its own.
collect_ignore = ["django_sessions/test_example.py"]
