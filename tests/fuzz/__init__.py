"""Every reader of foreign bytes, fed with damaged ones: `python -m tests.fuzz --seconds 600` is the long form.

Each target runs in a child process under a memory limit and a limit of processor time for each input.  A finding is
what no reader may do: die by a signal, hang, take memory without bound, or raise anything but a PipelineError.
"""
