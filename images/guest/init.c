// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * PID 1 of every guest, from power-on to a console that answers.
 *
 * It starts from the initramfs, loads the modules that this kernel needs to reach its disks (listed
 * in /modules.list, empty if they are built in), mounts a tmpfs over the read-only guest root, makes
 * that the root and serves the console. One process does all of it: under emulation every exec takes
 * milliseconds, and a shell script would need dozens.
 *
 * The kernel command line says which devices to use:
 *   blockyard.root=DEV      the guest root, a read-only file system (a disk name such as vda)
 *   blockyard.modules=DEV   a read-only file system with lib/modules/RELEASE
 *   blockyard.console=DEV   the character device that leads to the host's console (ttyS0: shared
 *                           with the kernel log)
 *   blockyard.ssh           bring up the network and sshd
 *   blockyard.shell=DEV     keep an interactive shell on that tty
 */
#define _GNU_SOURCE
#include "guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define DEVICE_WAIT_MS 60000 /* a debug kernel probes slowly under emulation */

static void vlog(const char *format, va_list arguments)
{
	char line[512];
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	int start = snprintf(line, sizeof(line), "<4>blockyard-init: ");
	vsnprintf(line + start, sizeof(line) - start, format, arguments);
	(void)!write(fd, line, strlen(line));
	close(fd);
}

void log_line(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vlog(format, arguments);
	va_end(arguments);
}

void die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vlog(format, arguments);
	va_end(arguments);
	exit(1);
}

static void must_mount(const char *source, const char *target, const char *type,
		       unsigned long flags, const char *data)
{
	mkdir(target, 0755);
	if (mount(source, target, type, flags, data))
		die("cannot mount %s (%s) on %s: %s", source, type, target, strerror(errno));
}

/* Mounts a file system that a kernel may lack (configfs, debugfs); tests check what they need. */
static void may_mount(const char *type, const char *target)
{
	mkdir(target, 0755);
	mount(type, target, type, 0, NULL);
}

/* The value of a kernel parameter: "" for one without a value, NULL when absent. */
static const char *option(const char *name)
{
	static char line[4096];
	static char value[128];
	size_t length = strlen(name);

	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	if (fd >= 0)
		close(fd);
	if (got < 0)
		die("cannot read /proc/cmdline: %s", strerror(errno));
	line[got] = '\0';

	char *rest = line;
	for (char *word; (word = strsep(&rest, " \n"));) {
		if (strncmp(word, name, length))
			continue;
		if (word[length] == '\0')
			return "";
		if (word[length] == '=') {
			snprintf(value, sizeof(value), "%s", word + length + 1);
			return value;
		}
	}
	return NULL;
}

static void wait_for(const char *path)
{
	const struct timespec pause = {.tv_nsec = 2 * 1000 * 1000};

	for (int waited_ms = 0; access(path, F_OK); waited_ms += 2) {
		if (waited_ms >= DEVICE_WAIT_MS)
			die("%s did not appear: is its driver in this kernel?", path);
		nanosleep(&pause, NULL);
	}
}

/* Loads the modules in /modules.list, in order; skips modules that are loaded or built in. */
static void load_boot_modules(void)
{
	char path[256];
	FILE *list = fopen("/modules.list", "re");

	if (!list)
		return;
	while (fgets(path, sizeof(path), list)) {
		path[strcspn(path, "\n")] = '\0';
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			die("initramfs lacks %s: %s", path, strerror(errno));
		if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
			log_line("cannot load %s: %s", path, strerror(errno));
		close(fd);
	}
	fclose(list);
}

static void copy_file(const char *from, const char *to, mode_t mode)
{
	int in = open(from, O_RDONLY | O_CLOEXEC);
	if (in < 0)
		return;
	int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	if (out < 0)
		die("cannot write %s: %s", to, strerror(errno));
	while (sendfile(out, in, NULL, 1 << 20) > 0)
		;
	fchmod(out, mode);
	close(in);
	close(out);
}

/* Mounts the guest root, read-only, with a tmpfs over it: all writes are lost with the guest. */
static void enter_root(struct shell *spare)
{
	char device[160];
	const char *name = option("blockyard.root");

	if (!name)
		die("blockyard.root= is missing on the kernel command line");
	snprintf(device, sizeof(device), "/dev/%s", name);
	wait_for(device);
	must_mount(device, "/lower", "erofs", MS_RDONLY, NULL);
	must_mount("tmpfs", "/upper", "tmpfs", 0, "size=75%");
	mkdir("/upper/data", 0755);
	mkdir("/upper/work", 0755);
	must_mount("overlay", "/root", "overlay", 0,
		   "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work");
	shell_start(spare, "/root");

	name = option("blockyard.modules");
	if (name) {
		snprintf(device, sizeof(device), "/dev/%s", name);
		wait_for(device);
		must_mount(device, "/root/usr/lib/modules", "erofs", MS_RDONLY, NULL);
	}
	mkdir("/root/dev", 0755);
	if (mount("/dev", "/root/dev", NULL, MS_MOVE, NULL))
		die("cannot move /dev: %s", strerror(errno));
	must_mount("tmpfs", "/root/run", "tmpfs", 0, "mode=755");
	mkdir("/root" GUEST_DIR, 0700);
	copy_file("/init", "/root" GUEST_DIR "/agent", 0755);
	copy_file("/ssh/start-ssh", "/root" GUEST_DIR "/start-ssh", 0755);
	copy_file("/ssh/host_key", "/root" GUEST_DIR "/host_key", 0600);
	copy_file("/ssh/authorized_keys", "/root" GUEST_DIR "/authorized_keys", 0600);

	umount2("/proc", MNT_DETACH);
	if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		die("cannot enter the guest root: %s", strerror(errno));
}

static void mount_kernel_file_systems(void)
{
	must_mount("proc", "/proc", "proc", 0, NULL);
	must_mount("sysfs", "/sys", "sysfs", 0, NULL);
	may_mount("configfs", "/sys/kernel/config");
	may_mount("debugfs", "/sys/kernel/debug");
	may_mount("tracefs", "/sys/kernel/tracing");
	may_mount("devpts", "/dev/pts");
	may_mount("tmpfs", "/dev/shm");
	(void)!symlink("/proc/self/fd", "/dev/fd");
	(void)!symlink("/proc/self/fd/0", "/dev/stdin");
	(void)!symlink("/proc/self/fd/1", "/dev/stdout");
	(void)!symlink("/proc/self/fd/2", "/dev/stderr");
}

/*
 * Limits processes to two per MiB of memory, fewer than Linux does. So a fork bomb hits this limit
 * and does not use up the memory, which would stall a guest for minutes.
 */
static void limit_processes(void)
{
	char text[16];
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	int fd = open("/proc/sys/kernel/threads-max", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	int size = snprintf(text, sizeof(text), "%ld", pages * (page >> 10) / 1024 * 2);
	(void)!write(fd, text, size);
	close(fd);
}

static void interface_up(int fd, const char *name, in_addr_t address, in_addr_t mask)
{
	struct ifreq request = {0};
	struct sockaddr_in *value = (struct sockaddr_in *)&request.ifr_addr;

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	value->sin_family = AF_INET;
	value->sin_addr.s_addr = htonl(address);
	if (ioctl(fd, SIOCSIFADDR, &request))
		die("no network device %s: is virtio_net in this kernel?", name);
	value->sin_addr.s_addr = htonl(mask);
	ioctl(fd, SIOCSIFNETMASK, &request);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		die("cannot bring up %s: %s", name, strerror(errno));
}

/*
 * Sets up the network before the console answers the host: QEMU retries a connection to a guest
 * without a network only after seconds, but one that sshd does not accept yet is refused at once.
 */
static void start_ssh(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	wait_for("/sys/class/net/eth0");
	interface_up(fd, "lo", 0x7f000001, 0xff000000);
	/* the address that QEMU's user network forwards to */
	interface_up(fd, "eth0", 0x0a00020f, 0xffffff00);
	close(fd);
	if (fork() == 0) {
		int fd = open("/dev/kmsg", O_WRONLY);
		dup2(fd, 1);
		dup2(fd, 2);
		setsid();
		setpriority(PRIO_PROCESS, 0, -20); /* answers even when scripts use every CPU */
		execl(GUEST_DIR "/start-ssh", "start-ssh", NULL);
		die("cannot start sshd: %s", strerror(errno));
	}
}

/* Starts a process that keeps a login shell running on `tty`. */
static void start_shell(const char *tty)
{
	char path[160];

	snprintf(path, sizeof(path), "/dev/%s", tty);
	if (fork())
		return;
	for (;;) {
		wait_for(path);
		pid_t shell = fork();
		if (shell == 0) {
			setsid();
			int fd = open(path, O_RDWR);
			ioctl(fd, TIOCSCTTY, 1);
			dup2(fd, 0);
			dup2(fd, 1);
			dup2(fd, 2);
			setenv("TERM", "xterm", 1);
			(void)!chdir("/root");
			execl("/bin/bash", "-bash", NULL);
			_exit(127);
		}
		int status = 0;
		waitpid(shell, &status, 0);
		if (status)
			sleep(1); /* no busy loop when it cannot start */
	}
}

/* Opens descriptors 0 to 2: without /dev/console the kernel starts us with none. */
static void open_standard_files(void)
{
	int filler;

	do
		filler = open("/dev/null", O_RDWR);
	while (filler >= 0 && filler <= 2);
	close(filler);
}

/* Opens the kernel log's port: a port that is not open receives nothing, not even SysRq. */
static void listen_for_sysrq(void)
{
	struct termios settings;
	int fd = open("/dev/" LOG_PORT, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || tcgetattr(fd, &settings))
		return;
	cfmakeraw(&settings); /* no echo into the kernel log */
	tcsetattr(fd, TCSANOW, &settings);
}

const char *boot(int *shared, struct shell *spare)
{
	static char console[160];
	const char *value;

	/* the kernel may have mounted devtmpfs already (CONFIG_DEVTMPFS_MOUNT) */
	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	open_standard_files();
	must_mount("proc", "/proc", "proc", 0, NULL);
	load_boot_modules();
	sethostname("guest", 5);
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	setenv("LC_ALL", "C.UTF-8", 1);
	setenv("TERM", "dumb", 1);
	enter_root(spare);
	mount_kernel_file_systems();
	limit_processes();

	if (option("blockyard.ssh"))
		start_ssh();
	if ((value = option("blockyard.shell")))
		start_shell(value);
	if (!(value = option("blockyard.console")))
		die("blockyard.console= is missing on the kernel command line");
	*shared = !strcmp(value, LOG_PORT);
	if (!*shared)
		listen_for_sysrq();
	snprintf(console, sizeof(console), "/dev/%s", value);
	wait_for(console);
	return console;
}
