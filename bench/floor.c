/* The floor: what the kernel takes for the same bytes to the same sockets, and nothing else.

   cc -O2 -o floor floor.c && ./floor PORT

   GET /ws/G upgraded  a reader of group G, below 1024. Its key is not answered: nobody here checks it.
   POST /pub/G         the body, as one text frame, in a send(2) of its own to each reader of the group; then 200.
   GET anything        200.

   Sends block: a reader who takes nothing stops it. Requests are short, and come whole or in few pieces. */

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { GROUPS = 1024, FILES = 65536, REQUEST = 65536 };

struct group { int *fds, count, room; };
struct connection { char *bytes; int length, reader; };

static struct group groups[GROUPS];
static struct connection connections[FILES];

static void all(int fd, const char *bytes, size_t length) {
    while (length) {
        ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0) return;
        bytes += sent;
        length -= sent;
    }
}

static void join(struct group *group, int fd) {
    if (group->count == group->room) {
        group->room = group->room ? 2 * group->room : 16;
        group->fds = realloc(group->fds, group->room * sizeof *group->fds);
    }
    group->fds[group->count++] = fd;
}

static void leave(int fd) {
    for (int g = 0; g < GROUPS; g++)
        for (int i = 0; i < groups[g].count; i++)
            if (groups[g].fds[i] == fd) groups[g].fds[i--] = groups[g].fds[--groups[g].count];
}

static void publish(struct group *group, const char *body, size_t length) {
    static char frame[REQUEST + 4];
    size_t head = length < 126 ? 2 : 4;
    frame[0] = (char)0x81;
    frame[1] = (char)(length < 126 ? length : 126);
    if (head == 4) frame[2] = (char)(length >> 8), frame[3] = (char)length;
    memcpy(frame + head, body, length);
    for (int i = 0; i < group->count; i++) all(group->fds[i], frame, head + length);
}

static void answer(int fd, const char *text) { all(fd, text, strlen(text)); }

/* One request, if it is whole: the bytes that it had, or 0. */
static int request(int fd, struct connection *connection) {
    char *bytes = connection->bytes, *end = memmem(bytes, connection->length, "\r\n\r\n", 4);
    if (!end) return 0;
    int head = end + 4 - bytes, length = 0;
    bytes[head - 1] = 0;
    char *declared = strcasestr(bytes, "\r\nContent-Length:"), *group = strchr(bytes + 6, '/');
    if (declared) length = atoi(declared + 17);
    if (connection->length < head + length) return 0;
    int number = group ? atoi(group + 1) % GROUPS : 0;
    if (strcasestr(bytes, "\r\nUpgrade: websocket")) {
        answer(fd, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        connection->reader = 1;
        join(&groups[number], fd);
    } else {
        if (!strncmp(bytes, "POST", 4)) publish(&groups[number], bytes + head, length);
        answer(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
    return head + length;
}

static void readable(int fd) {
    struct connection *connection = &connections[fd];
    char waste[4096];
    if (connection->reader) {
        if (read(fd, waste, sizeof waste) <= 0) leave(fd), connection->reader = 0, close(fd);
        return;
    }
    if (!connection->bytes) connection->bytes = malloc(REQUEST);
    int took = read(fd, connection->bytes + connection->length, REQUEST - 1 - connection->length);
    if (took > 0) {
        connection->length += took;
        connection->bytes[connection->length] = 0;
        while ((took = request(fd, connection))) {
            connection->length -= took;
            memmove(connection->bytes, connection->bytes + took, connection->length);
        }
        if (!connection->reader) return;
    }
    free(connection->bytes);
    connection->bytes = NULL, connection->length = 0;
    if (!connection->reader) close(fd);
}

int main(int count, char **arguments) {
    struct rlimit files = {0, 0};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < FILES ? files.rlim_max : FILES;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(count > 1 ? atoi(arguments[1]) : 0)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) return perror("listen"), 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                readable(fd);
                continue;
            }
            fd = accept(listener, NULL, NULL);
            if (fd < 0 || fd >= FILES) continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            event.data.fd = fd;
            epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
        }
    }
}
