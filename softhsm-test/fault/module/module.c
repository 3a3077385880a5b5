// A PKCS#11 module for tests. It passes every call to the real one (the variable FAULT_MODULE) and makes what is asked
// for in a control file (FAULT_CONTROL, mapped by the test as well) go wrong.
//
// It gives the smallest free number to each session and data object, so that a number whose owner was forgotten is soon
// somebody else's, and it notes what a caller of a module must never do.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef unsigned long CK_ULONG, CK_RV;
typedef struct { CK_ULONG type; void *value; CK_ULONG length; } CK_ATTRIBUTE;
typedef CK_RV (*CK_FUNCTION)(void *, void *, void *, void *, void *, void *, void *, void *);

// The functions stand in the order of PKCS#11 v2.40 (pkcs11f.h).
enum {
	INITIALIZE = 0, FINALIZE = 1, GET_FUNCTION_LIST = 3, INIT_PIN = 10, SET_PIN = 11, OPEN_SESSION = 12, CLOSE_SESSION = 13,
	CLOSE_ALL_SESSIONS = 14, GET_SESSION_INFO = 15, LOGIN = 18, LOGOUT = 19, CREATE_OBJECT = 20, DESTROY_OBJECT = 22, GET_ATTRIBUTE_VALUE = 24,
	ENCRYPT = 30, ENCRYPT_UPDATE = 31, DECRYPT = 34, SIGN = 43, GENERATE_RANDOM = 64, FUNCTIONS = 68,
};
typedef struct { unsigned char major, minor; CK_FUNCTION f[FUNCTIONS]; } CK_FUNCTION_LIST;

enum { OK = 0, GENERAL_ERROR = 0x5, DEVICE_REMOVED = 0x32, OBJECT_HANDLE_INVALID = 0x82, SESSION_HANDLE_INVALID = 0xb3 };

// What the test and the module share; control.go has the same.
typedef struct {
	_Atomic int64_t away;      // 1: the device is away
	_Atomic int64_t function;  // which function goes wrong, or -1 for each
	_Atomic int64_t countdown; // at which call of it, 1 for the next
	_Atomic int64_t times;     // at how many calls from then on
	_Atomic int64_t action, value;
	_Atomic int64_t hits;           // calls that went wrong
	_Atomic int64_t held, release;  // calls that hang; 1: they go on
	_Atomic int64_t forget_session; // a number to forget before the next call, or 0
	_Atomic int64_t forget_object;
	_Atomic int64_t inside, most, violations, sessions; // most: calls at once, hanging and late ones too
	_Atomic int64_t calls[FUNCTIONS];
} control;

enum { RETURN = 1, HANG = 2, LENGTH = 3, FORGET = 4, FORGET_ALL = 5, LOG_OUT = 6, DELAY = 7 };

static CK_FUNCTION_LIST real, ours;
static control nothing, *shared = &nothing;

// Sessions and data objects by the numbers that callers know.
enum { SESSIONS = 4096, OBJECTS = 65536, OBJECT_BASE = 1 << 24 };
static pthread_mutex_t numbers = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t running = PTHREAD_RWLOCK_INITIALIZER; // a real module does not lose what it is working on
static CK_ULONG session_of[SESSIONS];
static _Atomic int busy[SESSIONS];
static struct { CK_ULONG handle, session; } object_of[OBJECTS];
static CK_ULONG slot;

static CK_ULONG number_session(CK_ULONG handle) {
	for (CK_ULONG n = 1; n < SESSIONS; n++)
		if (!session_of[n]) {
			session_of[n] = handle;
			shared->sessions++;
			return n;
		}
	return 0;
}

static CK_ULONG number_object(CK_ULONG handle, CK_ULONG session) {
	for (CK_ULONG n = 1; n < OBJECTS; n++)
		if (!object_of[n].handle) {
			object_of[n].handle = handle;
			object_of[n].session = session;
			return OBJECT_BASE + n;
		}
	return 0;
}

// forget_session_number drops a session and its objects; the real one is closed.
static void forget_session_number(CK_ULONG n) {
	if (n >= SESSIONS || !session_of[n]) return;
	real.f[CLOSE_SESSION]((void *)session_of[n], 0, 0, 0, 0, 0, 0, 0);
	session_of[n] = 0;
	shared->sessions--;
	for (CK_ULONG o = 1; o < OBJECTS; o++)
		if (object_of[o].session == n) memset(&object_of[o], 0, sizeof object_of[o]);
}

static void forget_all_numbers(void) {
	memset(session_of, 0, sizeof session_of);
	shared->sessions = 0;
	memset(object_of, 0, sizeof object_of);
}

static int takes_session(int n) {
	return (n >= INIT_PIN && n <= SET_PIN) || (n >= CLOSE_SESSION && n < FUNCTIONS - 1 && n != CLOSE_ALL_SESSIONS);
}

// due reports whether this call is one of those that go wrong.
static int due(int n) {
	int64_t function = shared->function, times = shared->times;
	if (!times || (function >= 0 && function != n)) return 0;
	int64_t left = atomic_fetch_sub(&shared->countdown, 1);
	if (left > 1 || left <= 1 - times) return 0;
	shared->hits++;
	return 1;
}

// forgotten carries out what the test wants forgotten before this call. Nobody is running.
static void forgotten(int action, CK_ULONG session) {
	CK_ULONG n = atomic_exchange(&shared->forget_session, 0);
	if (n) forget_session_number(n);
	n = atomic_exchange(&shared->forget_object, 0);
	if (n > OBJECT_BASE && object_of[n - OBJECT_BASE].handle) {
		real.f[DESTROY_OBJECT]((void *)session_of[object_of[n - OBJECT_BASE].session], (void *)object_of[n - OBJECT_BASE].handle, 0, 0, 0, 0, 0, 0);
		memset(&object_of[n - OBJECT_BASE], 0, sizeof object_of[0]);
	}
	if (action == FORGET) forget_session_number(session);
	if (action == FORGET_ALL) {
		real.f[CLOSE_ALL_SESSIONS]((void *)slot, 0, 0, 0, 0, 0, 0, 0);
		forget_all_numbers();
	}
	if (action == LOG_OUT) real.f[LOGOUT]((void *)session_of[session], 0, 0, 0, 0, 0, 0, 0);
}

// lengthen makes the module lie about how many bytes it has returned.
static void lengthen(int n, void *c, void *d, void *e, int64_t by) {
	if ((n == ENCRYPT || n == ENCRYPT_UPDATE || n == DECRYPT || n == SIGN) && e) *(CK_ULONG *)e += by;
	if (n == GET_ATTRIBUTE_VALUE)
		for (CK_ULONG i = 0; i < (CK_ULONG)d; i++) ((CK_ATTRIBUTE *)c)[i].length += by;
}

// run makes the call, with the module's own numbers.
static CK_RV run(int n, CK_ULONG session, void *a, void *b, void *c, void *d, void *e, void *f, void *g, void *h) {
	pthread_mutex_lock(&numbers);
	if (session) {
		if (session >= SESSIONS || !session_of[session]) {
			pthread_mutex_unlock(&numbers);
			return SESSION_HANDLE_INVALID;
		}
		a = (void *)session_of[session];
	}
	if ((n == DESTROY_OBJECT || n == GET_ATTRIBUTE_VALUE) && (CK_ULONG)b > OBJECT_BASE) {
		CK_ULONG o = (CK_ULONG)b - OBJECT_BASE;
		if (!object_of[o].handle) {
			pthread_mutex_unlock(&numbers);
			return OBJECT_HANDLE_INVALID;
		}
		b = (void *)object_of[o].handle;
		if (n == DESTROY_OBJECT) memset(&object_of[o], 0, sizeof object_of[0]);
	}
	if (n == CLOSE_SESSION && session) {
		session_of[session] = 0;
		shared->sessions--;
		for (CK_ULONG o = 1; o < OBJECTS; o++)
			if (object_of[o].session == session) memset(&object_of[o], 0, sizeof object_of[o]);
	}
	pthread_mutex_unlock(&numbers);

	if (session && atomic_exchange(&busy[session], 1)) shared->violations++; // one session, two calls
	if (n == FINALIZE && shared->inside) shared->violations++;               // finalized under load
	shared->inside++;
	CK_RV rv = real.f[n](a, b, c, d, e, f, g, h);
	shared->inside--;
	if (session) busy[session] = 0;

	pthread_mutex_lock(&numbers);
	if (rv == OK && n == OPEN_SESSION) {
		slot = (CK_ULONG)a;
		*(CK_ULONG *)e = number_session(*(CK_ULONG *)e);
	}
	if (rv == OK && n == CREATE_OBJECT) {
		CK_ULONG *made = d;
		for (CK_ULONG i = 0; i < (CK_ULONG)c; i++) { // keys keep the module's own handles
			CK_ATTRIBUTE *class = (CK_ATTRIBUTE *)b + i;
			if (class->type == 0 && *(CK_ULONG *)class->value == 0) *made = number_object(*made, session);
		}
	}
	if (n == FINALIZE || n == CLOSE_ALL_SESSIONS) forget_all_numbers();
	pthread_mutex_unlock(&numbers);
	return rv;
}

static CK_RV pass_one(int n, void *a, void *b, void *c, void *d, void *e, void *f, void *g, void *h) {
	if (shared->away && n != FINALIZE) return DEVICE_REMOVED;
	int wrong = due(n), action = wrong ? shared->action : 0;
	if (action == RETURN) return shared->value;
	if (action == HANG) {
		shared->held++;
		while (!shared->release) usleep(1000);
		shared->held--;
	}
	if (action == DELAY) usleep(shared->value);
	CK_ULONG session = takes_session(n) ? (CK_ULONG)a : 0;
	if ((action >= FORGET && action <= LOG_OUT) || shared->forget_session || shared->forget_object) {
		pthread_rwlock_wrlock(&running);
		forgotten(action, session);
		pthread_rwlock_unlock(&running);
	}
	pthread_rwlock_rdlock(&running);
	CK_RV rv = run(n, session, a, b, c, d, e, f, g, h);
	pthread_rwlock_unlock(&running);
	if (action == LENGTH && rv == OK) lengthen(n, c, d, e, shared->value);
	return rv;
}

static _Atomic int64_t at_once;

static CK_RV pass(int n, void *a, void *b, void *c, void *d, void *e, void *f, void *g, void *h) {
	shared->calls[n]++;
	int64_t now = ++at_once, most = shared->most;
	while (now > most && !atomic_compare_exchange_weak(&shared->most, &most, now)) {}
	CK_RV rv = pass_one(n, a, b, c, d, e, f, g, h);
	at_once--;
	return rv;
}

#define PASS(n) \
	static CK_RV pass_##n(void *a, void *b, void *c, void *d, void *e, void *f, void *g, void *h) { return pass(n, a, b, c, d, e, f, g, h); }
#define TEN(do, t) do(t##0) do(t##1) do(t##2) do(t##3) do(t##4) do(t##5) do(t##6) do(t##7) do(t##8) do(t##9)
#define ALL(do) \
	do(0) do(1) do(2) do(4) do(5) do(6) do(7) do(8) do(9) TEN(do, 1) TEN(do, 2) TEN(do, 3) TEN(do, 4) TEN(do, 5) \
	do(60) do(61) do(62) do(63) do(64) do(65) do(66) do(67)
ALL(PASS)

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list) {
	if (!ours.f[GET_FUNCTION_LIST]) {
		void *module = dlopen(getenv("FAULT_MODULE"), RTLD_NOW);
		CK_RV (*get)(CK_FUNCTION_LIST **) = module ? dlsym(module, "C_GetFunctionList") : NULL;
		CK_FUNCTION_LIST *found;
		if (!get || get(&found)) return GENERAL_ERROR;
		memcpy(&real, found, sizeof real);
		memcpy(&ours, found, sizeof ours);
#define TAKE(n) ours.f[n] = pass_##n;
		ALL(TAKE)
		ours.f[GET_FUNCTION_LIST] = (CK_FUNCTION)C_GetFunctionList;
	}
	int file = open(getenv("FAULT_CONTROL"), O_RDWR);
	void *map = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (file >= 0) close(file);
	if (map == MAP_FAILED) return GENERAL_ERROR;
	shared = map; // another test's file, when the module is loaded again
	*list = &ours;
	return OK;
}
