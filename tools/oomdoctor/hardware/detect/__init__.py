"""Reading the real machine: each outside thing (NVML, files, programs, psutil) behind one door that tests replace."""
