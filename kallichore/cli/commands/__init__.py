"""What ``kcclient`` can be told to do: a module for each subject, arguments in, exit code out."""
