"""The C backend: a program becomes one C++ file, compiled with the machine's compiler."""
