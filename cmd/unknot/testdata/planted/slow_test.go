//go:build slow

package planted

import "runtime"

// contended does the same with a lock held, and yields, so that the other goroutines wait for it.
func contended(c *counter, _ uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	runtime.Gosched()
	c.v = work(c.v, 20)
	return c.v
}

// filled allocates each time.
func filled([]byte) []byte {
	buf := make([]byte, 1024)
	for i := range buf[:64] {
		buf[i] = 1
	}
	return buf
}

// walked goes down the columns, so that each step is on another cache line.
func walked(m []uint64) (sum uint64) {
	for x := range side {
		for y := range side {
			sum += m[y*side+x]
		}
	}
	return sum
}
