package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	defaultBytes = 1 << 30
	// Of a VolumeSnapshotClass: how long a snapshot stays "not ready", as cloud snapshots do while they are uploaded.
	readyAfterParameter = "readyAfter"
)

type controller struct {
	csi.UnimplementedControllerServer
	pool *pool
}

func (*controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	resp := &csi.ControllerGetCapabilitiesResponse{}
	for _, can := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		resp.Capabilities = append(resp.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: can}},
		})
	}
	return resp, nil
}

func (c *controller) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if req.Name == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume needs a name")
	}
	if err := checkCapabilities(req.VolumeCapabilities); err != nil {
		return nil, err
	}
	bytes, err := sizeOf(req.CapacityRange)
	if err != nil {
		return nil, err
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()

	source, least, err := c.source(req.VolumeContentSource)
	if err != nil {
		return nil, err
	}
	if bytes < least {
		if limit := req.CapacityRange.GetLimitBytes(); limit != 0 && limit < least {
			return nil, status.Errorf(codes.OutOfRange, "the source has %d bytes, the volume may have %d", least, limit)
		}
		bytes = least
	}
	id := idFor(volumes, req.Name)
	found, err := c.pool.find(volumes, id)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if found == nil {
		found = &record{ID: id, Name: req.Name, Bytes: bytes, Source: source, CreatedAt: time.Now()}
		if err := c.pool.create(ctx, volumes, source, *found); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	} else if limit := req.CapacityRange.GetLimitBytes(); found.Source != source || found.Bytes < bytes || (limit != 0 && found.Bytes > limit) {
		return nil, status.Errorf(codes.AlreadyExists, "volume %s exists with another size or source", req.Name)
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId: found.ID, CapacityBytes: found.Bytes, ContentSource: req.VolumeContentSource,
	}}, nil
}

// source says what to copy ("" for nothing) and how large the copy must be at least.
func (c *controller) source(from *csi.VolumeContentSource) (string, int64, error) {
	kind, id := "", ""
	switch {
	case from == nil:
		return "", 0, nil
	case from.GetSnapshot() != nil:
		kind, id = snapshots, from.GetSnapshot().SnapshotId
	case from.GetVolume() != nil:
		kind, id = volumes, from.GetVolume().VolumeId
	default:
		return "", 0, status.Error(codes.InvalidArgument, "a volume's source is a snapshot or a volume")
	}
	found, err := c.pool.find(kind, id)
	if err != nil {
		return "", 0, status.Error(codes.Internal, err.Error())
	}
	if found == nil {
		return "", 0, status.Errorf(codes.NotFound, "no %s/%s to copy", kind, id)
	}
	return kind + "/" + id, found.Bytes, nil
}

func (c *controller) DeleteVolume(ctx context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if req.VolumeId == "" {
		return nil, status.Error(codes.InvalidArgument, "no volume named")
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if err := c.pool.remove(ctx, volumes, req.VolumeId); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.DeleteVolumeResponse{}, nil
}

func (c *controller) ValidateVolumeCapabilities(_ context.Context, req *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if req.VolumeId == "" || len(req.VolumeCapabilities) == 0 {
		return nil, status.Error(codes.InvalidArgument, "a volume and at least one capability are needed")
	}
	if found, err := c.pool.find(volumes, req.VolumeId); err != nil || found == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %s", req.VolumeId)
	}
	if err := checkCapabilities(req.VolumeCapabilities); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: req.VolumeContext, VolumeCapabilities: req.VolumeCapabilities, Parameters: req.Parameters,
	}}, nil
}

func (c *controller) ListVolumes(_ context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	all, err := c.pool.list(volumes)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	page, next, err := pageOf(all, req.StartingToken, req.MaxEntries)
	if err != nil {
		return nil, err
	}
	resp := &csi.ListVolumesResponse{NextToken: next}
	for _, one := range page {
		resp.Entries = append(resp.Entries, &csi.ListVolumesResponse_Entry{
			Volume: &csi.Volume{VolumeId: one.ID, CapacityBytes: one.Bytes},
		})
	}
	return resp, nil
}

func (c *controller) CreateSnapshot(ctx context.Context, req *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if req.Name == "" || req.SourceVolumeId == "" {
		return nil, status.Error(codes.InvalidArgument, "a snapshot needs a name and a volume")
	}
	var readyAfter time.Duration
	if text := req.Parameters[readyAfterParameter]; text != "" {
		var err error
		if readyAfter, err = time.ParseDuration(text); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "%s: %v", readyAfterParameter, err)
		}
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	id := idFor(snapshots, req.Name)
	found, err := c.pool.find(snapshots, id)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if found != nil {
		if found.Source != req.SourceVolumeId {
			return nil, status.Errorf(codes.AlreadyExists, "snapshot %s exists of another volume", req.Name)
		}
		return &csi.CreateSnapshotResponse{Snapshot: found.snapshot()}, nil
	}
	volume, err := c.pool.find(volumes, req.SourceVolumeId)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if volume == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %s", req.SourceVolumeId)
	}
	now := time.Now()
	found = &record{ID: id, Name: req.Name, Bytes: volume.Bytes, Source: volume.ID, CreatedAt: now, ReadyAt: now.Add(readyAfter)}
	if err := c.pool.create(ctx, snapshots, volumes+"/"+volume.ID, *found); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.CreateSnapshotResponse{Snapshot: found.snapshot()}, nil
}

func (c *controller) DeleteSnapshot(ctx context.Context, req *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if req.SnapshotId == "" {
		return nil, status.Error(codes.InvalidArgument, "no snapshot named")
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if err := c.pool.remove(ctx, snapshots, req.SnapshotId); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

func (c *controller) ListSnapshots(_ context.Context, req *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	all, err := c.pool.list(snapshots)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	var wanted []record
	for _, one := range all {
		if (req.SnapshotId == "" || req.SnapshotId == one.ID) && (req.SourceVolumeId == "" || req.SourceVolumeId == one.Source) {
			wanted = append(wanted, one)
		}
	}
	page, next, err := pageOf(wanted, req.StartingToken, req.MaxEntries)
	if err != nil {
		return nil, err
	}
	resp := &csi.ListSnapshotsResponse{NextToken: next}
	for _, one := range page {
		resp.Entries = append(resp.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: one.snapshot()})
	}
	return resp, nil
}

func (r *record) snapshot() *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: r.ID, SourceVolumeId: r.Source, SizeBytes: r.Bytes,
		CreationTime: timestamppb.New(r.CreatedAt), ReadyToUse: !time.Now().Before(r.ReadyAt),
	}
}

// pageOf cuts a list; a token is the index of the next entry.
func pageOf(all []record, token string, limit int32) ([]record, string, error) {
	if limit < 0 {
		return nil, "", status.Error(codes.InvalidArgument, "a page cannot have fewer than no entries")
	}
	start := 0
	if token != "" {
		var err error
		if start, err = strconv.Atoi(token); err != nil || start < 0 || start > len(all) {
			return nil, "", status.Errorf(codes.Aborted, "no page starts at %q", token)
		}
	}
	end := len(all)
	if limit == 0 || start+int(limit) >= end {
		return all[start:end], "", nil
	}
	end = start + int(limit)
	return all[start:end], fmt.Sprint(end), nil
}

func sizeOf(wanted *csi.CapacityRange) (int64, error) {
	least, most := wanted.GetRequiredBytes(), wanted.GetLimitBytes()
	switch {
	case least < 0 || most < 0 || (most != 0 && most < least):
		return 0, status.Error(codes.OutOfRange, "no size fits the capacity range")
	case least != 0:
		return least, nil
	case most != 0 && most < defaultBytes:
		return most, nil
	default:
		return defaultBytes, nil
	}
}

func checkCapabilities(wanted []*csi.VolumeCapability) error {
	if len(wanted) == 0 {
		return status.Error(codes.InvalidArgument, "at least one volume capability is needed")
	}
	for _, one := range wanted {
		if one.GetMount() == nil {
			return status.Error(codes.InvalidArgument, "only file system volumes are offered")
		}
	}
	return nil
}
