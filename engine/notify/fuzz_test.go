package notify

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzJournal: a journal is memory that somebody else wrote, and may still write. Whatever is in it, it is refused or
// counts, gives its note, and takes and strikes notifications.
func FuzzJournal(f *testing.F) {
	head := func(magic, entries, note uint64, rest ...byte) []byte {
		b := make([]byte, headSize)
		for i, v := range []uint64{magic, entries, note, 5, 0, 1} {
			binary.NativeEndian.PutUint64(b[8*i:], v)
		}
		return append(b, rest...)
	}
	f.Add(head(journalMagic, 4, 3, append(make([]byte, 4*entrySize), "abc"...)...), uint64(6))
	f.Add(head(journalMagic, 1, 0, bytes.Repeat([]byte{7}, entrySize)...), uint64(0x0707070707070707))
	f.Add(head(journalMagic, 1<<63, 1<<63), uint64(1))
	f.Add(head(journalMagic, 0, ^uint64(0)), uint64(1))
	f.Add(head(1, 1, 0, make([]byte, entrySize)...), uint64(1))
	f.Add([]byte("short"), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, id uint64) {
		fd, err := unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 0 {
			if _, err := unix.Pwrite(fd, b, 0); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, journalSeals); err != nil {
			t.Fatal(err)
		}
		j, err := OpenJournal(fd)
		if err != nil {
			_ = unix.Close(fd)
			return
		}
		defer j.Close()
		before := j.Outstanding()
		note, err := j.Note()
		if err != nil || len(note) != len(b)-headSize-len(j.entries)*entrySize || before > len(j.entries) {
			t.Fatalf("%d of %d entries, a note of %d bytes in %d, %v", before, len(j.entries), len(note), len(b), err)
		}
		if id == 0 {
			return // no notification has it
		}
		j.put(&Notif{ID: id})
		j.strike(id)
		if after := j.Outstanding(); after > before {
			t.Fatalf("%d outstanding, %d after one came and went", before, after)
		}
	})
}
