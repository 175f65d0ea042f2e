//go:build !slow

package planted

// contended works and counts on its own.
func contended(_ *counter, v uint64) uint64 { return work(v, 20) }

// filled reuses the buffer.
func filled(buf []byte) []byte {
	if buf == nil {
		buf = make([]byte, 1024)
	}
	for i := range buf[:64] {
		buf[i] = 1
	}
	return buf
}

// walked goes along the rows.
func walked(m []uint64) (sum uint64) {
	for y := range side {
		for x := range side {
			sum += m[y*side+x]
		}
	}
	return sum
}
