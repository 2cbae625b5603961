/* What an answer costs at the least: one thread waits on epoll, takes every read for a request and
 * answers it with the bytes of a file, head and all. No parsing, no time, no limits: a ruler for
 * servers, not one of them.
 *
 *   cc -O2 -o floor floor.c && ./floor PORT ANSWER_FILE
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LARGEST_ANSWER = 1 << 20, EVENTS = 128 };

static void watch(int queue, int socket)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = socket };
	epoll_ctl(queue, EPOLL_CTL_ADD, socket, &event);
}

int main(int count, char **arguments)
{
	static char answer[LARGEST_ANSWER], request[1 << 14];
	const int on = 1;
	FILE *file = count == 3 ? fopen(arguments[2], "rb") : NULL;
	if (!file) {
		fputs("usage: floor PORT ANSWER_FILE\n", stderr);
		return 2;
	}
	const size_t length = fread(answer, 1, sizeof answer, file);
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(atoi(arguments[1])),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 512)) {
		perror("floor");
		return 1;
	}
	const int queue = epoll_create1(0);
	watch(queue, listener);
	for (;;) {
		struct epoll_event ready[EVENTS];
		const int woken = epoll_wait(queue, ready, EVENTS, -1);
		for (int i = 0; i < woken; i++) {
			const int client = ready[i].data.fd;
			if (client == listener) {
				const int accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
				if (accepted >= 0) {
					setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
					watch(queue, accepted);
				}
			} else if (read(client, request, sizeof request) <= 0 ||
				   write(client, answer, length) != (ssize_t)length) {
				close(client);
			}
		}
	}
}
