package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"
)

// pool is a folder on btrfs: volumes/ID and snapshots/ID are subvolumes, meta/ holds one record for each.
// A record is written last on creation and removed first on deletion: a subvolume without one is a leftover.
type pool struct {
	root string
	mu   sync.Mutex // CSI callers repeat requests; one at a time keeps "look, then create" true
}

type record struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Bytes     int64     `json:"bytes"`
	Source    string    `json:"source,omitempty"` // of a snapshot: its volume; of a volume: "volumes/ID" or "snapshots/ID"
	CreatedAt time.Time `json:"createdAt"`
	ReadyAt   time.Time `json:"readyAt"`
}

const (
	volumes   = "volumes"
	snapshots = "snapshots"
)

func openPool(root string) (*pool, error) {
	if root == "" {
		return nil, errors.New("no --pool given")
	}
	p := &pool{root: root}
	for _, kind := range []string{volumes, snapshots} {
		for _, dir := range []string{filepath.Join(root, kind), filepath.Join(root, "meta", kind)} {
			if err := os.MkdirAll(dir, 0o711); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// idFor makes the same ID for the same name, so a repeated request finds what the first one made.
func idFor(kind, name string) string {
	sum := sha256.Sum256([]byte(kind + "/" + name))
	return strings.TrimSuffix(kind, "s") + "-" + hex.EncodeToString(sum[:16])
}

func (p *pool) path(kind, id string) string { return filepath.Join(p.root, kind, id) }

func (p *pool) recordPath(kind, id string) string {
	return filepath.Join(p.root, "meta", kind, id+".json")
}

// find returns nil when there is no such volume or snapshot. IDs come from outside, so only our own shape is looked up.
func (p *pool) find(kind, id string) (*record, error) {
	if id == "" || filepath.Base(id) != id {
		return nil, nil
	}
	text, err := os.ReadFile(p.recordPath(kind, id))
	if errors.Is(err, os.ErrNotExist) || isNameTooLong(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := &record{}
	return found, json.Unmarshal(text, found)
}

func (p *pool) list(kind string) ([]record, error) {
	entries, err := os.ReadDir(filepath.Join(p.root, "meta", kind))
	if err != nil {
		return nil, err
	}
	var all []record
	for _, entry := range entries {
		id, isRecord := strings.CutSuffix(entry.Name(), ".json")
		if !isRecord {
			continue
		}
		found, err := p.find(kind, id)
		if err != nil {
			return nil, err
		}
		if found != nil {
			all = append(all, *found)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	return all, nil
}

// create makes a subvolume, empty or as a copy of `from` ("volumes/ID" or "snapshots/ID"), and then its record.
func (p *pool) create(ctx context.Context, kind, from string, made record) error {
	path := p.path(kind, made.ID)
	if err := deleteSubvolume(ctx, path); err != nil {
		return err
	}
	args := []string{"subvolume", "create", path}
	if from != "" {
		args = []string{"subvolume", "snapshot", filepath.Join(p.root, from), path}
		if kind == snapshots {
			args = []string{"subvolume", "snapshot", "-r", filepath.Join(p.root, from), path}
		}
	}
	if err := btrfs(ctx, args...); err != nil {
		return err
	}
	return p.writeRecord(kind, made)
}

func (p *pool) writeRecord(kind string, made record) error {
	text, err := json.Marshal(made)
	if err != nil {
		return err
	}
	temporary := p.recordPath(kind, made.ID) + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, p.recordPath(kind, made.ID))
}

// remove succeeds when there is nothing to remove.
func (p *pool) remove(ctx context.Context, kind, id string) error {
	if id == "" || filepath.Base(id) != id || isNameTooLong(statError(p.recordPath(kind, id))) {
		return nil
	}
	if err := os.Remove(p.recordPath(kind, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return deleteSubvolume(ctx, p.path(kind, id))
}

func deleteSubvolume(ctx context.Context, path string) error {
	if errors.Is(statError(path), os.ErrNotExist) {
		return nil
	}
	return btrfs(ctx, "subvolume", "delete", path)
}

func statError(path string) error {
	_, err := os.Lstat(path)
	return err
}

func btrfs(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "btrfs", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("btrfs %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
