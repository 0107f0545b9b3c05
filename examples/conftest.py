# A process has one set of Django settings, and other tests have theirs. So test_examples.py runs these in processes of
# their own.
collect_ignore = ["django_sessions/test_example.py", "same_gate/test_example.py"]
