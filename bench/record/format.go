package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"
)

// version is that of the files that are written, and the only one that is read.
// docs/recording.md describes it.
const version = 1

// magic begins each file: not text, and damaged by what mangles line ends.
const magic = "\x89UKR\r\n\x1a\n"

const (
	fixedSize = len(magic) + 4 + 8 // magic, version, length of the file
	crcSize   = 4
	minCall   = 8 // bytes
)

// maxFile bounds what Read takes into memory: MaxCalls calls of 22 bytes.
const maxFile = 22 * MaxCalls

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The bits of a call's byte of flags.
const (
	outcomeBits   = 3
	dispatchShift = 2
	dispatchBits  = 3
	trappedBit    = 1 << 4
	blockedBit    = 1 << 5
	sleptBit      = 1 << 6
	unusedBits    = 1 << 7
)

// Encode returns r as a file. It fails with [ErrEmpty], or says what in r
// contradicts itself.
func (r *Recording) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("write recording: %w", err)
	}
	b := make([]byte, 0, 64+16*len(r.Calls))
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint64(b, 0) // the length, known at the end
	put := func(vs ...uint64) {
		for _, v := range vs {
			b = binary.AppendUvarint(b, v)
		}
	}
	put(uint64(max(r.Start.Unix(), 0)), uint64(r.Elapsed), uint64(r.CPUs), uint64(r.Threads))
	put(r.Lost.Unfinished, r.Lost.Unmatched, r.Lost.Overrun, r.Lost.Missed)
	put(uint64(len(r.Syscalls)))
	for _, s := range r.Syscalls {
		put(uint64(s.Arch), uint64(uint32(s.NR)))
	}
	put(uint64(len(r.Calls)))
	last := int64(0)
	for i := range r.Calls {
		c := &r.Calls[i]
		if err := r.checkCall(c, last); err != nil {
			return nil, fmt.Errorf("write recording: call %d: %w", i, err)
		}
		put(uint64(c.Arrival-last), uint64(c.Thread), uint64(c.Syscall))
		b = append(b, c.flags())
		put(uint64(c.Receive), uint64(c.Wait), uint64(c.Service), uint64(c.Away))
		last = c.Arrival
	}
	if len(b)+crcSize > maxFile {
		return nil, fmt.Errorf("write recording: a file of %d bytes would be more than is read (%d)", len(b)+crcSize, maxFile)
	}
	binary.LittleEndian.PutUint64(b[len(magic)+4:], uint64(len(b)+crcSize))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

func (c *Call) flags() byte {
	f := byte(c.Outcome) | byte(c.Dispatch)<<dispatchShift
	if c.Trapped {
		f |= trappedBit
	}
	if c.Blocked {
		f |= blockedBit
	}
	if c.Slept {
		f |= sleptBit
	}
	return f
}

func (r *Recording) checkCall(c *Call, last int64) error {
	switch longest := int64(maxElapsed); {
	case c.Arrival < last || c.Arrival > int64(r.Elapsed):
		return fmt.Errorf("it came after %v: not in order, or after the end", time.Duration(c.Arrival))
	case c.Receive < 0 || c.Wait < 0 || c.Service < 0 || c.Receive > longest || c.Wait > longest || c.Service > longest:
		return errors.New("its times are below 0, or longer than a recording")
	case c.Thread < 0 || int(c.Thread) >= r.Threads:
		return fmt.Errorf("it is of thread %d of %d", c.Thread, r.Threads)
	case c.Syscall < 0 || int(c.Syscall) >= len(r.Syscalls):
		return fmt.Errorf("it is system call %d of %d", c.Syscall, len(r.Syscalls))
	case c.Outcome > Stale || c.Dispatch > Inline:
		return errors.New("unknown outcome or dispatch")
	case c.Dispatch == Unseen && c.Wait != 0:
		return errors.New("a wait without a dispatch")
	case c.Away < 0 || c.Away > c.Service:
		return errors.New("its handler had no CPU for longer than it took")
	case !c.Trapped && c.Receive != 0:
		return errors.New("a time before its receive without an arrival")
	}
	return nil
}

// read reads a recording, whole. Its errors say why it is none: [ErrEmpty], a
// *[versionError], io.ErrUnexpectedEOF for one that was cut short. What it takes of
// memory is in proportion to what there is to read.
func read(from io.Reader) (*Recording, error) {
	b, err := io.ReadAll(io.LimitReader(from, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	head := []byte(magic)
	switch {
	case len(b) == 0:
		return nil, fmt.Errorf("the file is empty: %w", ErrEmpty)
	case len(b) < len(head) && bytes.HasPrefix(head, b):
		return nil, fmt.Errorf("the recording was cut short: %d bytes are left: %w", len(b), io.ErrUnexpectedEOF)
	case !bytes.HasPrefix(b, head):
		return nil, errors.New("it is no recording")
	case len(b) < fixedSize:
		return nil, fmt.Errorf("the recording was cut short: %d bytes are left: %w", len(b), io.ErrUnexpectedEOF)
	}
	if v := binary.LittleEndian.Uint32(b[len(magic):]); v != version {
		return nil, &versionError{v}
	}
	switch size := binary.LittleEndian.Uint64(b[len(magic)+4:]); {
	case size > maxFile || len(b) > maxFile:
		return nil, fmt.Errorf("a file of %d bytes: a recording has at most %d", max(size, uint64(len(b))), maxFile)
	case uint64(len(b)) < size:
		return nil, fmt.Errorf("the recording was cut short: %d of %d bytes are left: %w", len(b), size, io.ErrUnexpectedEOF)
	case uint64(len(b)) > size || size < uint64(fixedSize+crcSize):
		return nil, fmt.Errorf("the recording is damaged: it has %d bytes and should have %d", len(b), size)
	}
	body, sum := b[:len(b)-crcSize], binary.LittleEndian.Uint32(b[len(b)-crcSize:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, errors.New("the recording is damaged: its checksum is wrong")
	}
	r, err := decode(body[fixedSize:])
	if err != nil && !errors.Is(err, ErrEmpty) {
		err = fmt.Errorf("the recording is damaged: %w", err)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// A cursor reads numbers until the first that is not there or too large.
type cursor struct {
	b   []byte
	err error
}

func (d *cursor) uint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if d.err == nil && (n <= 0 || v > limit) {
		d.err = errors.New("a number is missing or too large")
	}
	if d.err != nil {
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *cursor) byte() byte {
	if d.err == nil && len(d.b) == 0 {
		d.err = errors.New("a byte is missing")
	}
	if d.err != nil {
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func decode(b []byte) (*Recording, error) {
	d := &cursor{b: b}
	r := &Recording{
		Start:   time.Unix(int64(d.uint(math.MaxUint32<<8)), 0).UTC(),
		Elapsed: time.Duration(d.uint(uint64(maxElapsed))),
		CPUs:    int(d.uint(maxCPUs)),
		Threads: int(d.uint(MaxCalls)),
		Lost: Lost{d.uint(math.MaxUint64), d.uint(math.MaxUint64),
			d.uint(math.MaxUint64), d.uint(math.MaxUint64)},
	}
	// Each takes some bytes, so that a number alone has nothing allocated.
	n := d.uint(uint64(len(d.b) / 2))
	r.Syscalls = make([]Syscall, 0, n)
	for range n {
		r.Syscalls = append(r.Syscalls, Syscall{uint32(d.uint(math.MaxUint32)), int32(uint32(d.uint(math.MaxUint32)))})
	}
	n = d.uint(uint64(min(len(d.b)/minCall, MaxCalls)))
	r.Calls = make([]Call, 0, n)
	if d.err != nil {
		return nil, d.err
	}
	last := int64(0)
	for i := range n {
		c := Call{Arrival: last + int64(d.uint(uint64(maxElapsed)))}
		c.Thread, c.Syscall = int32(d.uint(math.MaxInt32)), int32(d.uint(math.MaxInt32))
		f := d.byte()
		c.Receive, c.Wait, c.Service = int64(d.uint(uint64(maxElapsed))), int64(d.uint(uint64(maxElapsed))), int64(d.uint(uint64(maxElapsed)))
		c.Away = int64(d.uint(uint64(maxElapsed)))
		c.Outcome, c.Dispatch = Outcome(f&outcomeBits), Dispatch(f>>dispatchShift&dispatchBits)
		c.Trapped, c.Blocked, c.Slept = f&trappedBit != 0, f&blockedBit != 0, f&sleptBit != 0
		if d.err == nil && f&unusedBits != 0 {
			d.err = errors.New("unknown flags")
		}
		if d.err == nil {
			d.err = r.checkCall(&c, last)
		}
		if d.err != nil {
			return nil, fmt.Errorf("call %d: %w", i, d.err)
		}
		last = c.Arrival
		r.Calls = append(r.Calls, c)
	}
	if len(d.b) > 0 {
		return nil, fmt.Errorf("%d bytes follow its last call", len(d.b))
	}
	return r, r.check()
}
