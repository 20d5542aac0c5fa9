/* A server as small and as fast as can be, so that what is measured is what stands in front of it, or what starts it.
 *
 *   mock_engine BIRTHS ADDRESS CHUNKS INTERVAL_US
 *
 * It appends "PID NANOSECONDS\n" (CLOCK_MONOTONIC) to the file BIRTHS as its first act, listens at ADDRESS (a port of 127.0.0.1, or the path
 * of a Unix socket), answers GET with its process id (/v1/models with a list), and every POST as a chat completion: a stream of CHUNKS events, one each
 * INTERVAL_US (0: as fast as they can be written), when the body asks for one, with the usage when it asks for that. Each event carries the moment
 * at which it was sent, `@NANOSECONDS` (CLOCK_MONOTONIC). It ends with its parent.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 512, BUFFER_BYTES = 65536, PARENT_CHECK_MS = 500 };

typedef struct {
    int fd, used, chunks_left, closes, wants_usage;
    uint64_t next_ns;
    char buffer[BUFFER_BYTES + 1];
} Connection;

static Connection *connections[MAX_CONNECTIONS];
static int connection_count, chunk_count;
static uint64_t interval_ns;
static const char *STREAM_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char *ANSWER =
    "{\"choices\":[{\"finish_reason\":\"length\",\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello there, how "
    "can I help you today?\"}}],\"created\":1763658000,\"model\":\"mock\",\"object\":\"chat.completion\",\"usage\":{\"completion_tokens\":9,"
    "\"prompt_tokens\":55,\"total_tokens\":64},\"id\":\"chatcmpl-4sB1c0uXyqkW2sVQyPRu0VYXJ7h2bBBB\"}";
static const char *EVENT =
    "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\" @%llu\"}}],\"created\":1763658000,"
    "\"id\":\"chatcmpl-4sB1c0uXyqkW2sVQyPRu0VYXJ7h2bBBB\",\"model\":\"mock\",\"object\":\"chat.completion.chunk\"}\n\n";
static const char *MODELS = "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\"}]}";
static const char *LAST_EVENT =
    "data: {\"choices\":[{\"finish_reason\":\"length\",\"index\":0,\"delta\":{}}],\"created\":1763658000,"
    "\"id\":\"chatcmpl-4sB1c0uXyqkW2sVQyPRu0VYXJ7h2bBBB\",\"model\":\"mock\",\"object\":\"chat.completion.chunk\"}\n\n";
static const char *USAGE_EVENT =
    "data: {\"choices\":[],\"created\":1763658000,\"id\":\"chatcmpl-4sB1c0uXyqkW2sVQyPRu0VYXJ7h2bBBB\",\"model\":\"mock\","
    "\"object\":\"chat.completion.chunk\",\"usage\":{\"completion_tokens\":%d,\"prompt_tokens\":55,\"total_tokens\":%d}}\n\n";
static const char *DONE = "data: [DONE]\n\n";

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void report_birth(const char *path) {
    uint64_t born = now_ns();
    char line[64];
    int length = snprintf(line, sizeof line, "%d %llu\n", (int)getpid(), (unsigned long long)born);
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file < 0 || write(file, line, (size_t)length) != length) fail(path);
    close(file);
}

static int listen_at(const char *address) {
    int on = 1, is_path = strchr(address, '/') != NULL;
    int listener = socket(is_path ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    struct sockaddr_un unix_address = {.sun_family = AF_UNIX};
    struct sockaddr_in ip_address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(address))};
    ip_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (is_path) {
        strncpy(unix_address.sun_path, address, sizeof unix_address.sun_path - 1);
        unlink(address);
    }
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr *name = is_path ? (struct sockaddr *)&unix_address : (struct sockaddr *)&ip_address;
    socklen_t size = is_path ? sizeof unix_address : sizeof ip_address;
    if (bind(listener, name, size) < 0 || listen(listener, 512) < 0) fail(address);
    return listener;
}

static void send_all(int fd, const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return;
        bytes += sent;
        length -= (size_t)sent;
    }
}

static void send_chunk(int fd, const char *text) {
    char framed[1024];
    int length = snprintf(framed, sizeof framed, "%zx\r\n%s\r\n", strlen(text), text);
    send_all(fd, framed, (size_t)length);
}

static void send_event(int fd) {
    char text[512];
    snprintf(text, sizeof text, EVENT, (unsigned long long)now_ns());
    send_chunk(fd, text);
}

static void send_usage(int fd) {
    char text[512];
    snprintf(text, sizeof text, USAGE_EVENT, chunk_count, chunk_count + 55);
    send_chunk(fd, text);
}

static void send_body(int fd, const char *body) {
    char whole[2048];
    int length = snprintf(whole, sizeof whole, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                          strlen(body), body);
    send_all(fd, whole, (size_t)length);
}

static int close_connection(int number) {
    close(connections[number]->fd);
    free(connections[number]);
    connections[number] = connections[--connection_count];
    return 0;
}

/* Both return whether the connection is still there. */
static int finish_stream(int number) {
    Connection *connection = connections[number];
    send_chunk(connection->fd, LAST_EVENT);
    if (connection->wants_usage) send_usage(connection->fd);
    send_chunk(connection->fd, DONE);
    send_all(connection->fd, "0\r\n\r\n", 5);
    return connection->closes ? close_connection(number) : 1;
}

static int advance_stream(int number) {
    Connection *connection = connections[number];
    send_event(connection->fd);
    connection->next_ns += interval_ns;
    return --connection->chunks_left > 0 ? 1 : finish_stream(number);
}

static int start_stream(int number) {
    Connection *connection = connections[number];
    send_all(connection->fd, STREAM_HEAD, strlen(STREAM_HEAD));
    connection->chunks_left = chunk_count;
    connection->next_ns = now_ns();
    if (interval_ns) return advance_stream(number);
    while (connection->chunks_left-- > 0) send_event(connection->fd);
    connection->chunks_left = 0;
    return finish_stream(number);
}

static int answer(int number, const char *body) {
    Connection *connection = connections[number];
    char pid[32];
    if (strncmp(connection->buffer, "GET /v1/models ", 15) == 0) {
        send_body(connection->fd, MODELS);
    } else if (strncmp(connection->buffer, "GET ", 4) == 0) {
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        send_body(connection->fd, pid);
    } else if (strstr(body, "\"stream\":true") || strstr(body, "\"stream\": true")) {
        connection->wants_usage = strstr(body, "\"include_usage\":true") || strstr(body, "\"include_usage\": true");
        return start_stream(number);
    } else {
        send_body(connection->fd, ANSWER);
    }
    return connection->closes ? close_connection(number) : 1;
}

/* Requests carry a Content-Length, and nobody pipelines. */
static int handle_input(int number) {
    Connection *connection = connections[number];
    connection->buffer[connection->used] = 0;
    char *head_end = strstr(connection->buffer, "\r\n\r\n");
    if (!head_end) return 1;
    *head_end = 0;
    char *length_header = strcasestr(connection->buffer, "\r\ncontent-length:");
    int body_bytes = length_header ? atoi(length_header + 17) : 0;
    connection->closes = strcasestr(connection->buffer, "\r\nconnection: close") != NULL;
    *head_end = '\r';
    char *body = head_end + 4;
    if (connection->used < (int)(body - connection->buffer) + body_bytes) return 1;
    connection->used = 0;
    return answer(number, body);
}

static void receive(int number) {
    Connection *connection = connections[number];
    ssize_t got = recv(connection->fd, connection->buffer + connection->used, (size_t)(BUFFER_BYTES - connection->used), 0);
    if (got <= 0) {
        close_connection(number);
        return;
    }
    connection->used += (int)got;
    handle_input(number);
}

static void accept_one(int listener) {
    int on = 1, fd = accept(listener, NULL, NULL);
    if (fd < 0) return;
    if (connection_count == MAX_CONNECTIONS) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    Connection *connection = calloc(1, sizeof *connection);
    connection->fd = fd;
    connections[connection_count++] = connection;
}

static int advance_streams(void) {
    uint64_t now = now_ns(), soonest = now + (uint64_t)PARENT_CHECK_MS * 1000000u;
    for (int number = connection_count - 1; number >= 0; number--) {
        Connection *connection = connections[number];
        if (connection->chunks_left > 0 && connection->next_ns <= now && !advance_stream(number)) continue;
        if (connection->chunks_left > 0 && connection->next_ns < soonest) soonest = connection->next_ns;
    }
    return soonest <= now ? 0 : (int)((soonest - now + 999999u) / 1000000u);
}

int main(int count, char **arguments) {
    if (count != 5) {
        fprintf(stderr, "usage: mock_engine BIRTHS ADDRESS CHUNKS INTERVAL_US\n");
        return 2;
    }
    report_birth(arguments[1]);
    chunk_count = atoi(arguments[3]);
    interval_ns = strtoull(arguments[4], NULL, 10) * 1000u;
    int listener = listen_at(arguments[2]);
    pid_t parent = getppid();
    struct pollfd polled[MAX_CONNECTIONS + 1];
    while (getppid() == parent) {
        int timeout_ms = advance_streams(), served = connection_count;
        polled[0] = (struct pollfd){.fd = listener, .events = POLLIN};
        for (int number = 0; number < served; number++)
            polled[number + 1] = (struct pollfd){.fd = connections[number]->fd, .events = POLLIN};
        if (poll(polled, (nfds_t)served + 1, timeout_ms) < 0 && errno != EINTR) fail("poll");
        /* From the end, because a closed connection's place is taken by the last one. */
        for (int number = served - 1; number >= 0; number--)
            if (polled[number + 1].revents) receive(number);
        if (polled[0].revents) accept_one(listener);
    }
    return 0;
}
