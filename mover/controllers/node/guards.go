package node

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// guards remembers when the pods around each running restore were last looked at.
type guards struct {
	mu   sync.Mutex
	last map[types.UID]time.Time
}

// due reports whether it is time for another look, and takes it as done. One that
// failed is made up for by the next.
func (g *guards) due(job types.UID, now time.Time, every time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()

	if at, ok := g.last[job]; ok && now.Sub(at) < every {
		return false
	}

	if g.last == nil {
		g.last = map[types.UID]time.Time{}
	}

	g.last[job] = now

	return true
}

func (g *guards) drop(job types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()

	delete(g.last, job)
}
