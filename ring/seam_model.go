//go:build ringmodel

package ring

import "github.com/unknot/unknot/ring/internal/model"

// The seam of the model checker: each access is a step. See seam.go.

type mutex = model.Mutex

type atomicUint64 = model.Word

type atomicUint32 struct{ model.Word }

func (a *atomicUint32) Load() uint32         { return uint32(a.Word.Load()) }
func (a *atomicUint32) Store(x uint32)       { a.Word.Store(uint64(x)) }
func (a *atomicUint32) Swap(x uint32) uint32 { return uint32(a.Word.Swap(uint64(x))) }
func (a *atomicUint32) CompareAndSwap(old, new uint32) bool {
	return a.Word.CompareAndSwap(uint64(old), uint64(new))
}

type token struct{ model.Token }

func (t *token) init()    {}
func (t *token) acquire() { t.Token.Acquire() }
func (t *token) release() { t.Token.Release() }

const calm = 0 // at each push

func mark() uint64    { return model.Mark() }
func rewind(m uint64) { model.Rewind(m) }
func at(point)        {}

func futexWait(word *atomicUint32, old uint32) { model.FutexWait(&word.Word, uint64(old)) }
func futexWake(word *atomicUint32)             { model.FutexWake(&word.Word) }
