package ff1

import (
	"encoding/binary"
	"math/bits"
)

const (
	rounds    = 10
	blockSize = 16
)

type direction bool

const (
	encrypting direction = false
	decrypting direction = true
)

// prelude is what a lane waits for before its rounds.
type prelude uint8

const (
	none   prelude = iota
	ofP            // E(P)
	ofTail         // the CBC-MAC over E(P) and a tweak that does not fit the round's block
)

// state is what of a lane comes of digits.
//
// The halves A and B of algorithm 7 do not change places here: even rounds change the first by the second, odd rounds
// the second by the first, and after ten rounds each is where it belongs.
type state struct {
	half [2]uint64
	base [2]uint64 // the CBC-MAC over P and the tweak, the same in every round, as big-endian words
}

// first is E(P): P depends on the two lengths alone, so it is computed once per key and shape. It is a cipher output,
// not key material, but it stays inside this package all the same.
type first struct {
	known bool
	word  [2]uint64
}

// shape is what depends on a string's length n: u and the moduli 10^u and 10^v of algorithm 7, their reciprocals
// ⌊2^64 / 10^m⌋, and the place of the round's number, above the b bytes of a half.
type shape struct {
	u          int
	bytes      int // b
	shift      uint
	modulus    [2]uint64
	reciprocal [2]uint64
}

var shapes = func() (all [MaxDigits + 1]shape) {
	for n := MinDigits; n <= MaxDigits; n++ {
		u, v := n/2, n-n/2
		s := shape{u: u, modulus: [2]uint64{power(u), power(v)}}
		// b is ⌈⌈v·log2(10)⌉/8⌉, and 10^v is no power of two.
		s.bytes = (bits.Len64(power(v)) + 7) / 8
		s.shift = uint(8 * s.bytes)
		for i, m := range s.modulus {
			s.reciprocal[i], _ = bits.Div64(1, 0, m)
		}
		all[n] = s
	}
	return all
}()

func power(m int) uint64 {
	p := uint64(1)
	for range m {
		p *= 10
	}
	return p
}

// reduce is y mod m. The product with the reciprocal is the quotient, or one less.
func reduce(y, m, reciprocal uint64) uint64 {
	q, _ := bits.Mul64(y, reciprocal)
	if y -= q * m; y >= m {
		y -= m
	}
	return y
}

func (t *table) block(i int) []byte {
	return t.blocks[i*blockSize : (i+1)*blockSize : (i+1)*blockSize]
}

func words(block []byte) [2]uint64 {
	return [2]uint64{binary.BigEndian.Uint64(block), binary.BigEndian.Uint64(block[8:])}
}

// enter puts a string into the next free lane.
func (t *table) enter(r *request, lane int) {
	i := t.n
	t.n++
	l := &r.lanes[lane]
	n, size := len(l.Digits), len(l.Tweak)
	s, m, block := &t.states[i], &t.marks[i], t.block(i)
	u := shapes[n].u
	s.half = [2]uint64{number(l.Digits[:u]), number(l.Digits[u:])}
	clear(block)
	copy(block, l.Tweak)
	s.base = words(block)
	*m = mark{request: r, target: l.Target, lane: lane, step: 1, length: uint8(n), tweak: uint8(size)}
	if r.dir == decrypting {
		m.step = -1
	}
	first := &t.firsts[n][size]
	if !first.known {
		m.prelude = ofP
		writeP(block, n, size)
		return
	}
	t.chain(i, first)
}

// writeP writes P = [1] [2] [1] [radix:3] [10] [u mod 256] [n:4] [t:4].
func writeP(block []byte, n, tweak int) {
	copy(block, []byte{1, 2, 1, 0, 0, 10, 10, byte(n / 2)})
	binary.BigEndian.PutUint32(block[8:], uint32(n))
	binary.BigEndian.PutUint32(block[12:], uint32(tweak))
}

// chain takes E(P) into the CBC-MAC. Q = T ‖ 0^((−t−b−1) mod 16) ‖ [i] ‖ [NUM(B):b] is one block or two; where it is
// two, the first has the whole tweak, and zeros.
func (t *table) chain(i int, f *first) {
	s, m := &t.states[i], &t.marks[i]
	s.base[0] ^= f.word[0]
	s.base[1] ^= f.word[1]
	if int(m.tweak)+1+shapes[m.length].bytes <= blockSize {
		t.begin(i)
		return
	}
	m.prelude = ofTail
	block := t.block(i)
	binary.BigEndian.PutUint64(block, s.base[0])
	binary.BigEndian.PutUint64(block[8:], s.base[1])
}

// begin writes the input of a lane's first round.
func (t *table) begin(i int) {
	m := &t.marks[i]
	m.prelude, m.round = none, 0
	if m.step < 0 {
		m.round = rounds - 1
	}
	s := &t.states[i]
	s.input(t.block(i), &shapes[m.length], m.round)
}

// input writes the CBC-MAC so far xor what is left of Q, the round's number and the half that does not change: the
// CBC-MAC of P ‖ Q is the encryption of this one block.
func (s *state) input(block []byte, sh *shape, round int8) {
	binary.BigEndian.PutUint64(block, s.base[0])
	binary.BigEndian.PutUint64(block[8:], s.base[1]^(uint64(round)<<sh.shift|s.half[^round&1]))
}

// advance takes what the encrypter made of each block into its lane, and writes the lane's next. y is the first d bytes,
// d = 4⌈b/4⌉+4, and as b is at most 4, they are 8.
func (t *table) advance() {
	for i := range t.n {
		m, s := &t.marks[i], &t.states[i]
		block := t.block(i)
		if m.prelude != none {
			t.prepared(i)
			continue
		}
		sh := &shapes[m.length]
		p := m.round & 1
		modulus := sh.modulus[p]
		y := reduce(binary.BigEndian.Uint64(block), modulus, sh.reciprocal[p])
		if m.step < 0 {
			y = modulus - y
		}
		if y += s.half[p]; y >= modulus {
			y -= modulus
		}
		s.half[p] = y
		if m.round += m.step; uint8(m.round) < rounds {
			s.input(block, sh, m.round)
			continue
		}
		t.finish(i)
	}
}

// prepared takes the outcome of a prelude.
func (t *table) prepared(i int) {
	m := &t.marks[i]
	if m.prelude == ofP {
		f := &t.firsts[m.length][m.tweak]
		*f = first{known: true, word: words(t.block(i))}
		t.chain(i, f)
		return
	}
	t.states[i].base = words(t.block(i))
	t.begin(i)
}

// finish ends a lane, or has it go round again where its target has not got the string.
func (t *table) finish(i int) {
	m, s := &t.marks[i], &t.states[i]
	if m.target != nil {
		digits := t.digits[:m.length]
		s.write(digits)
		has := m.target.Has(digits)
		clear(digits)
		if m.walks++; !has && m.walks < MaxWalk {
			t.begin(i)
			return
		}
		m.lost = !has
	}
	t.ended = append(t.ended, i)
}

// write writes the halves as digits.
func (s *state) write(digits []byte) {
	u := len(digits) / 2
	putDigits(digits[:u], s.half[0])
	putDigits(digits[u:], s.half[1])
}

func number(digits []byte) (n uint64) {
	for _, d := range digits {
		n = 10*n + uint64(d-'0')
	}
	return n
}

func putDigits(dst []byte, n uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
}
