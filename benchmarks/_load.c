/* Clients that ask one server the same over and over, each the next thing as soon as its answer is whole.
 *
 *   load ADDRESS CLIENTS SECONDS WARM_UP_SECONDS REQUEST
 *
 * ADDRESS is HOST:PORT (of this machine) or the path of a Unix socket, REQUEST a file with the bytes to send. Prints one line of JSON. `requests`
 * and `events` are those that arrived within SECONDS, `all_requests` and `all_events` also those of the warm-up, and of the end, when what is under way is
 * waited for. Times are in milliseconds: `total_ms` until the answer was whole, `first_ms` until its first event (or first byte), `gap_ms` between two events,
 * `delay_ms` of events that carry the moment at which they were sent (`@` and CLOCK_MONOTONIC in nanoseconds, as the mock engine writes it).
 * Failures since the warm-up: `refused` (not 200, or an error within the stream; the first is shown on standard error), `stale` (a kept connection closed before a byte
 * of the answer came), `torn` (ended before it was whole; a stream is whole with `[DONE]`), `stuck` (not whole long after the time was over).
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_BYTES = 16384, LINE_BYTES = 1024, READ_BYTES = 65536, EVENTS_AT_ONCE = 256, PATIENCE_SECONDS = 60, TICK_MS = 100 };

typedef enum { HEAD, SIZED, TO_THE_END, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER } Part;

typedef struct {
    uint64_t *values;
    size_t count, room;
} Samples;

typedef struct {
    int fd, status, closes, is_stream, is_reused, is_answered, is_done, has_error, digits_end;
    Part part;
    uint64_t left, began_ns, first_ns, last_event_ns;
    size_t sent, head_used, line_used;
    char head[HEAD_BYTES + 1], line[LINE_BYTES + 1];
} Client;

static const char *address, *request;
static size_t request_bytes;
static int poller, active;
static uint64_t from_ns, until_ns;
static uint64_t requests, all_requests, events, all_events, refused, stale, torn, stuck;
static Samples total, first, gap, delay;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void add(Samples *samples, uint64_t value) {
    if (samples->count == samples->room) {
        samples->room = samples->room ? samples->room * 2 : 65536;
        samples->values = realloc(samples->values, samples->room * sizeof *samples->values);
        if (!samples->values) fail("realloc");
    }
    samples->values[samples->count++] = value;
}

static int counts(uint64_t at_ns) {
    return at_ns >= from_ns && at_ns < until_ns;
}

/* -- Connections ---------------------------------------------------------------------------------------------- */

static int open_socket(void) {
    int on = 1, is_path = strchr(address, '/') != NULL, fd = socket(is_path ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    if (fd < 0) fail("socket");
    if (is_path) {
        /* A full queue of a Unix socket cannot be waited for later, so it is waited for here. */
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        strncpy(name.sun_path, address, sizeof name.sun_path - 1);
        if (connect(fd, (struct sockaddr *)&name, sizeof name) < 0) fail(address);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        return fd;
    }
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1))};
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&name, sizeof name) < 0 && errno != EINPROGRESS) fail(address);
    return fd;
}

static void watch(Client *client, int how, uint32_t what) {
    struct epoll_event wanted = {.events = what, .data.ptr = client};
    if (epoll_ctl(poller, how, client->fd, &wanted) < 0) fail("epoll_ctl");
}

static void hang_up(Client *client) {
    if (client->fd >= 0) close(client->fd);
    client->fd = -1;
}

/* Sends what is left of the request; what does not fit goes when there is room. A broken connection is noticed when it is read. */
static void send_rest(Client *client) {
    while (client->sent < request_bytes) {
        ssize_t count = send(client->fd, request + client->sent, request_bytes - client->sent, MSG_NOSIGNAL);
        if (count < 0 && (errno == EAGAIN || errno == ENOTCONN)) {
            watch(client, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            return;
        }
        if (count < 0) break;
        client->sent += (size_t)count;
    }
    client->sent = request_bytes;
}

static void ask(Client *client) {
    uint64_t now = now_ns();
    if (now >= until_ns) {
        hang_up(client);
        active--;
        return;
    }
    client->is_reused = client->fd >= 0;
    client->part = HEAD;
    client->status = client->closes = client->is_stream = client->is_answered = client->is_done = client->has_error = 0;
    client->left = client->first_ns = client->last_event_ns = 0;
    client->sent = client->head_used = client->line_used = 0;
    client->began_ns = now;
    if (!client->is_reused) {
        client->fd = open_socket();
        watch(client, EPOLL_CTL_ADD, EPOLLIN);
    }
    send_rest(client);
}

/* -- Outcomes ------------------------------------------------------------------------------------------------- */

static void show_refusal(const Client *client, const char *what) {
    static int is_shown;
    if (!is_shown) fprintf(stderr, "refused: %.*s %s\n", (int)strcspn(client->head, "\r"), client->head, what);
    is_shown = 1;
}

static void next(Client *client) {
    if (client->closes) hang_up(client);
    ask(client);
}

static void finish_failed(Client *client, uint64_t *kind, uint64_t now) {
    if (now >= from_ns) ++*kind;
    client->closes = 1;
    next(client);
}

static void finish(Client *client, uint64_t now) {
    if (client->status != 200 || client->has_error) {
        show_refusal(client, client->line);
        if (now >= from_ns) refused++;
        next(client);
    } else if (client->is_stream && !client->is_done) {
        finish_failed(client, &torn, now);
    } else {
        all_requests++;
        requests += (uint64_t)counts(now);
        if (client->began_ns >= from_ns) {
            add(&total, now - client->began_ns);
            add(&first, (client->first_ns ? client->first_ns : now) - client->began_ns);
        }
        next(client);
    }
}

static void lose(Client *client, uint64_t now) {
    if (client->part == TO_THE_END) {
        client->closes = 1;
        finish(client, now);
    } else {
        finish_failed(client, client->is_reused && !client->is_answered ? &stale : &torn, now);
    }
}

/* -- Answers -------------------------------------------------------------------------------------------------- */

static void take_stamp(const char *line, uint64_t now) {
    const char *stamp = strchr(line, '@');
    uint64_t sent_ns = stamp ? strtoull(stamp + 1, NULL, 10) : 0;
    if (sent_ns > 1000000000u && sent_ns <= now) add(&delay, now - sent_ns);
}

static void take_line(Client *client, uint64_t now) {
    const char *line = client->line;
    client->line[client->line_used] = 0;
    if (client->line_used == 0 || strncmp(line, "data:", 5) != 0) return;
    const char *data = line + 5 + (line[5] == ' ');
    if (strncmp(data, "[DONE]", 6) == 0) {
        client->is_done = 1;
        return;
    }
    if (strncmp(data, "{\"error\"", 8) == 0) client->has_error = 1;
    all_events++;
    if (!client->first_ns) client->first_ns = now;
    if (counts(now)) {
        events++;
        take_stamp(data, now);
        if (client->last_event_ns) add(&gap, now - client->last_event_ns);
    }
    client->last_event_ns = now;
}

static void take_body(Client *client, const char *bytes, size_t count, uint64_t now) {
    if (!client->is_stream) {
        if (!client->first_ns) client->first_ns = now;
        size_t kept = count < LINE_BYTES - client->line_used ? count : LINE_BYTES - client->line_used;
        memcpy(client->line + client->line_used, bytes, kept);
        client->line_used += kept;
        client->line[client->line_used] = 0;
        return;
    }
    while (count > 0) {
        const char *end = memchr(bytes, '\n', count);
        size_t length = end ? (size_t)(end - bytes) : count, room = LINE_BYTES - client->line_used;
        size_t kept = length < room ? length : room;
        memcpy(client->line + client->line_used, bytes, kept);
        client->line_used += kept;
        if (!end) return;
        take_line(client, now);
        /* What an error said is kept to be shown. */
        if (!client->has_error) client->line_used = 0;
        bytes += length + 1;
        count -= length + 1;
    }
}

static const char *header(const Client *client, const char *name) {
    const char *found = strcasestr(client->head, name);
    return found ? found + strlen(name) : NULL;
}

static void read_head(Client *client) {
    const char *length = header(client, "\r\ncontent-length:"), *coding = header(client, "\r\ntransfer-encoding:");
    const char *connection = header(client, "\r\nconnection:"), *type = header(client, "\r\ncontent-type:");
    const char *space = strchr(client->head, ' ');
    client->status = space ? atoi(space) : 0;
    client->closes = connection && strncasecmp(connection + strspn(connection, " "), "close", 5) == 0;
    client->is_stream = type && strncasecmp(type + strspn(type, " "), "text/event-stream", 17) == 0;
    client->left = length ? strtoull(length, NULL, 10) : 0;
    client->part = coding ? CHUNK_SIZE : length ? SIZED : TO_THE_END;
    client->digits_end = 0;
}

/* Each `take_…` returns how many bytes it used; the answer is whole when `is_whole` is set. */
static size_t take_head(Client *client, const char *bytes, size_t count, int *is_whole) {
    size_t before = client->head_used, kept = count < HEAD_BYTES - before ? count : HEAD_BYTES - before;
    memcpy(client->head + before, bytes, kept);
    client->head_used += kept;
    client->head[client->head_used] = 0;
    char *end = strstr(client->head, "\r\n\r\n");
    if (!end) {
        if (client->head_used == HEAD_BYTES) fail("the head of an answer is too long");
        return kept;
    }
    end[2] = 0;
    read_head(client);
    *is_whole = client->part == SIZED && client->left == 0;
    return (size_t)(end + 4 - client->head) - before;
}

static void take_size_digit(Client *client, char byte, int *is_whole) {
    if (client->part == CHUNK_SIZE && byte == '\n') {
        client->part = client->left ? CHUNK : TRAILER;
        client->digits_end = 0;
    } else if (client->part == CHUNK_SIZE && isxdigit((unsigned char)byte) && !client->digits_end) {
        client->left = client->left * 16 + (uint64_t)(isdigit((unsigned char)byte) ? byte - '0' : tolower(byte) - 'a' + 10);
    } else if (client->part == CHUNK_SIZE) {
        client->digits_end = 1;
    } else if (client->part == CHUNK_END && byte == '\n') {
        client->part = CHUNK_SIZE;
        client->left = 0;
    } else if (client->part == TRAILER && byte == '\n') {
        /* `digits_end` is set by whatever stands in the line: an empty one is the last. */
        *is_whole = !client->digits_end;
        client->digits_end = 0;
    } else if (client->part == TRAILER && byte != '\r') {
        client->digits_end = 1;
    }
}

static size_t take_some(Client *client, const char *bytes, size_t count, uint64_t now, int *is_whole) {
    if (client->part == HEAD) return take_head(client, bytes, count, is_whole);
    if (client->part != SIZED && client->part != CHUNK && client->part != TO_THE_END) {
        take_size_digit(client, *bytes, is_whole);
        return 1;
    }
    size_t taken = client->part == TO_THE_END || count < client->left ? count : (size_t)client->left;
    take_body(client, bytes, taken, now);
    if (client->part != TO_THE_END) client->left -= taken;
    if (client->left == 0 && client->part == CHUNK) client->part = CHUNK_END;
    *is_whole = client->part == SIZED && client->left == 0;
    return taken;
}

static void receive(Client *client) {
    static char bytes[READ_BYTES];
    ssize_t count = recv(client->fd, bytes, sizeof bytes, 0);
    uint64_t now = now_ns();
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {
        lose(client, now);
        return;
    }
    client->is_answered = 1;
    int is_whole = 0;
    for (size_t used = 0; used < (size_t)count && !is_whole;)
        used += take_some(client, bytes + used, (size_t)count - used, now, &is_whole);
    if (is_whole) finish(client, now);
}

static void serve(Client *client, uint32_t what) {
    if (client->fd >= 0 && what & EPOLLOUT && !(what & (EPOLLERR | EPOLLHUP))) {
        watch(client, EPOLL_CTL_MOD, EPOLLIN);
        send_rest(client);
    }
    if (client->fd >= 0 && what & (EPOLLIN | EPOLLERR | EPOLLHUP)) receive(client);
}

/* -- The run -------------------------------------------------------------------------------------------------- */

static int ascending(const void *one, const void *other) {
    uint64_t left = *(const uint64_t *)one, right = *(const uint64_t *)other;
    return (left > right) - (left < right);
}

static void print_samples(const char *name, Samples *samples) {
    const double shares[] = {0.5, 0.95, 0.99};
    const char *names[] = {"p50", "p95", "p99"};
    qsort(samples->values, samples->count, sizeof *samples->values, ascending);
    printf(", \"%s\": {", name);
    for (int number = 0; number < 3 && samples->count; number++)
        printf("%s\"%s\": %.6f", number ? ", " : "", names[number],
               (double)samples->values[(size_t)(shares[number] * (double)(samples->count - 1))] / 1e6);
    printf("}");
}

static void print_all(double seconds) {
    printf("{\"seconds\": %f, \"requests\": %llu, \"all_requests\": %llu, \"events\": %llu, \"all_events\": %llu", seconds,
           (unsigned long long)requests, (unsigned long long)all_requests, (unsigned long long)events, (unsigned long long)all_events);
    printf(", \"refused\": %llu, \"stale\": %llu, \"torn\": %llu, \"stuck\": %llu", (unsigned long long)refused,
           (unsigned long long)stale, (unsigned long long)torn, (unsigned long long)stuck);
    print_samples("total_ms", &total);
    print_samples("first_ms", &first);
    print_samples("gap_ms", &gap);
    print_samples("delay_ms", &delay);
    printf("}\n");
}

static void read_request(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    static char bytes[1 << 20];
    request_bytes = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    request = bytes;
}

static void run(Client *clients, int count) {
    struct epoll_event ready[EVENTS_AT_ONCE];
    for (int number = 0; number < count; number++) {
        clients[number].fd = -1;
        ask(&clients[number]);
    }
    while (active > 0 && now_ns() < until_ns + (uint64_t)PATIENCE_SECONDS * 1000000000u) {
        int found = epoll_wait(poller, ready, EVENTS_AT_ONCE, TICK_MS);
        for (int number = 0; number < found; number++) serve(ready[number].data.ptr, ready[number].events);
    }
    stuck = (uint64_t)active;
}

int main(int count, char **arguments) {
    if (count != 6) {
        fprintf(stderr, "usage: load ADDRESS CLIENTS SECONDS WARM_UP_SECONDS REQUEST\n");
        return 2;
    }
    address = arguments[1];
    active = atoi(arguments[2]);
    double seconds = atof(arguments[3]);
    read_request(arguments[5]);
    Client *clients = calloc((size_t)active, sizeof *clients);
    poller = epoll_create1(0);
    if (!clients || poller < 0) fail("start");
    from_ns = now_ns() + (uint64_t)(atof(arguments[4]) * 1e9);
    until_ns = from_ns + (uint64_t)(seconds * 1e9);
    run(clients, active);
    print_all(seconds);
    return 0;
}
