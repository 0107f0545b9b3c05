// What a process uses: CPU time and memory.
#include <stdio.h>
#include <time.h>

// CPU time of a process, its threads that have ended among it, and of its children and theirs, in seconds.
static double cpu_seconds(int pid) {
  clockid_t clock;
  struct timespec t;
  if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
    return 0;
  double total = t.tv_sec + t.tv_nsec / 1e9;
  char name[64];
  snprintf(name, sizeof name, "/proc/%d/task/%d/children", pid, pid);
  FILE* f = fopen(name, "r");
  if (f) {
    int child;
    while (fscanf(f, "%d", &child) == 1)
      total += cpu_seconds(child);
    fclose(f);
  }
  return total;
}

// Resident memory of a process, in kB; -1: it has ended.
static long rss_kb(int pid) {
  char name[64];
  long size, resident = -1;
  snprintf(name, sizeof name, "/proc/%d/statm", pid);
  FILE* f = fopen(name, "r");
  if (!f)
    return -1;
  if (fscanf(f, "%ld %ld", &size, &resident) != 2)
    resident = -1;
  fclose(f);
  return resident < 0 ? -1 : resident * (sysconf(_SC_PAGESIZE) / 1024);
}
