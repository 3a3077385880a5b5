package hsm

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/miekg/pkcs11"
)

// Objects keeps byte strings as private session objects, on a session that runs nothing else: closing a session
// because of an unrelated error would take its objects along. It is safe for concurrent use.
type Objects struct {
	e    *Engine
	pool *pool

	mu   sync.Mutex
	live map[uint64]object
	// orphans came to be after their callers had left, and could not be destroyed then.
	orphans map[uint64]object
}

// object is a handle in one session. The handle alone does not say which object is meant: another session, another
// login, or a module that has lost count may give it again, and a lost card must not lead to somebody else's. So every
// object carries its id as its label.
type object struct {
	handle  pkcs11.ObjectHandle
	session *session
	epoch   uint64 // the login under which it was made
}

// NewObjects returns an empty keeper of session objects. It ends with the engine.
func (e *Engine) NewObjects() *Objects {
	return &Objects{e: e, pool: e.newPool(1, poolKind{keeps: true}), live: make(map[uint64]object), orphans: make(map[uint64]object)}
}

// Create stores value, which must not be empty, straight from the caller's buffer, and returns the object's id. After
// an [AbandonedError] the buffer may not be touched until it says so; the object is destroyed when it came to be.
func (o *Objects) Create(ctx context.Context, value []byte) (uint64, error) {
	if len(value) == 0 {
		return 0, errors.New("hsm: an empty value cannot be stored")
	}
	c := &creation{o: o, id: randomID(), value: value}
	if err := o.pool.do(ctx, newCall(c)); err != nil {
		return 0, fmt.Errorf("hsm: create a session object: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.live[c.id] = c.made
	return c.id, nil
}

// creation is one Create on its way.
type creation struct {
	o     *Objects
	id    uint64
	value []byte
	made  object
}

func (c *creation) run(s *session) error {
	c.o.destroyOrphans(s)
	epoch := c.o.e.login.epoch.Load()
	handle, err := c.o.e.direct.createData(s.handle, c.o.e.cfg.Profile.DataObjects, labelOf(c.id), c.value)
	c.made = object{handle, s, epoch}
	return err
}

func (c *creation) undo(s *session) {
	if c.made.session == s && c.o.e.direct.destroyObject(s.handle, c.made.handle) != nil {
		c.o.mu.Lock()
		defer c.o.mu.Unlock()
		c.o.orphans[c.id] = c.made
	}
}

// destroyOrphans tries again what an undo could not do, before anything else is done on the session. One whose session
// or handle is gone, or means another object, has ended.
func (o *Objects) destroyOrphans(s *session) {
	o.mu.Lock()
	orphans := maps.Clone(o.orphans)
	o.mu.Unlock()
	for id, orphan := range orphans {
		ended := orphan.session != s
		if !ended {
			label, err := o.e.direct.readLabel(s.handle, orphan.handle)
			switch {
			case err == nil && label == labelOf(id):
				ended = o.e.direct.destroyObject(s.handle, orphan.handle) == nil
			case err == nil:
				ended = true
			default:
				ended = isCode(err, pkcs11.CKR_OBJECT_HANDLE_INVALID)
			}
		}
		if ended {
			o.mu.Lock()
			delete(o.orphans, id)
			o.mu.Unlock()
		}
	}
}

// Read copies the object's value into dst and returns its length. An object that ended with its session is
// [ErrLost]. After an [AbandonedError] dst may not be touched until it says so.
func (o *Objects) Read(ctx context.Context, id uint64, dst []byte) (int, error) {
	if len(dst) == 0 {
		return 0, errors.New("hsm: an empty buffer cannot take a value")
	}
	var n int
	err := o.with(ctx, id, func(s *session, handle pkcs11.ObjectHandle) (err error) {
		n, err = o.read(s, id, handle, dst)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("hsm: read a session object: %w", err)
	}
	return n, nil
}

// read takes label and value in one round trip. A value that turns out to be another object's is wiped.
func (o *Objects) read(s *session, id uint64, handle pkcs11.ObjectHandle, dst []byte) (int, error) {
	var label [labelSize]byte
	n, err := o.e.direct.readData(s.handle, handle, &label, dst)
	if err != nil {
		return 0, err
	}
	if label != labelOf(id) {
		clear(dst)
		return 0, ErrLost
	}
	return n, nil
}

// Destroy ends the object.
func (o *Objects) Destroy(ctx context.Context, id uint64) error {
	err := o.with(ctx, id, func(s *session, handle pkcs11.ObjectHandle) error {
		if o.made(id).epoch != o.e.login.epoch.Load() { // the handle may be another object's by now
			label, err := o.e.direct.readLabel(s.handle, handle)
			if err != nil {
				return err
			}
			if label != labelOf(id) {
				return ErrLost
			}
		}
		err := o.e.direct.destroyObject(s.handle, handle)
		if err == nil {
			o.forget(id) // here, since the caller may have left: its number is free for another object
		} else {
			o.doubt(id)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("hsm: destroy a session object: %w", err)
	}
	return nil
}

// doubt has the object's label read before it is destroyed: a call that failed may have destroyed it all the same.
func (o *Objects) doubt(id uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if obj, ok := o.live[id]; ok {
		obj.epoch = 0
		o.live[id] = obj
	}
}

func (o *Objects) with(ctx context.Context, id uint64, f func(*session, pkcs11.ObjectHandle) error) error {
	obj := o.made(id)
	if obj.session == nil {
		return ErrLost
	}
	err := o.pool.do(ctx, newCall(workFunc(func(s *session) error {
		o.destroyOrphans(s)
		if s != obj.session {
			return ErrLost
		}
		return f(s, obj.handle)
	})))
	if isCode(err, pkcs11.CKR_OBJECT_HANDLE_INVALID) {
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	if errors.Is(err, ErrLost) {
		o.forget(id)
	}
	return err
}

// made returns what Create made, or an object without a session.
func (o *Objects) made(id uint64) object {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.live[id]
}

func (o *Objects) forget(id uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.live, id)
}

// randomID is never used twice, not even by another process on the same device.
func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand never fails since Go 1.24
	return binary.BigEndian.Uint64(b[:])
}

// labelSize is the length of an object's label: its id in hex.
const labelSize = 16

func labelOf(id uint64) (label [labelSize]byte) {
	const digits = "0123456789abcdef"
	for i := range label {
		label[i] = digits[id>>(60-4*i)&15]
	}
	return label
}
